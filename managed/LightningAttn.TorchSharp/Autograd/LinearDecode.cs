using LightningAttn.Interop;
using TorchSharp;
using static TorchSharp.torch;

namespace LightningAttn.Autograd;

/// <summary>
/// The differentiable form of decoding. Inputs: q, k, v, rates [Hv], state or null, and a <see cref="Call"/>. The
/// backward pass is the operator's own with N = 1 and the old state as its history.
/// </summary>
internal sealed class LinearDecode : torch.autograd.MultiTensorFunction<LinearDecode>
{
    private const int InputCount = 6;
    private const string SavedCall = "call";

    private static readonly AttentionOptions s_oneToken = new(BlockSize: 64, Scale: 1, BlockStates: false);

    /// <inheritdoc/>
    public override string Name => nameof(LinearDecode);

    /// <summary>
    /// Output [B, Hv * E] with the addressed slots of <paramref name="caches"/> updated in place, recorded for the
    /// backward pass. To be called inside a dispose scope.
    /// </summary>
    internal static Tensor RecordInPlace(
        Tensor q, Tensor k, Tensor v, Tensor rates, Tensor caches, Tensor slots)
    {
        Result result;
        using (torch.no_grad())
        {
            long slotCount = caches.size(0);
            using Scalar zero = 0.ToScalar();
            using Scalar count = slotCount.ToScalar();
            Tensor padding = slots.lt(zero).logical_or(slots.ge(count));
            Tensor oldStates = slotCount == 0
                ? caches.new_zeros(q.size(0), caches.size(1), caches.size(2), caches.size(3))
                : caches.index_select(0, slots.masked_fill(padding, zero)).masked_fill_(Rows(padding), zero);
            Tensor output = Kernels.Decode(q, k, v, rates, caches, caches, slots);
            result = new Result(output, NewState: null, oldStates, padding);
        }

        var call = new Call(nameof(Functional.linear_decode_forward), Wanted(q, k, v, rates), result);
        return apply(q, k, v, rates, null!, call)[0];
    }

    /// <summary>Output [B, Hv * E] and the new state, recorded. To be called inside a dispose scope.</summary>
    internal static (Tensor Output, Tensor NewState) Record(
        Tensor q, Tensor k, Tensor v, Tensor rates, Tensor state)
    {
        Result result;
        using (torch.no_grad())
        {
            Tensor newState = Kernels.NewState(state);
            Tensor output = Kernels.Decode(q, k, v, rates, state, newState, slots: null);
            result = new Result(output, newState, OldState: null, Padding: null);
        }

        Inputs wanted = Wanted(q, k, v, rates) | (state.requires_grad ? Inputs.History : Inputs.None);
        var call = new Call(nameof(Functional.linear_decode_step), wanted, result);
        List<Tensor> outputs = apply(q, k, v, rates, state, call);
        return (outputs[0], outputs[1]);
    }

    /// <inheritdoc/>
    public override List<Tensor> forward(torch.autograd.AutogradContext ctx, params object[] vars)
    {
        var call = (Call)vars[5];
        Result result = call.Result!;
        ctx.set_materialize_grads(false);
        ctx.save_for_backward(
        [
            (Tensor)vars[0],
            (Tensor)vars[1],
            (Tensor)vars[2],
            (Tensor)vars[3],
            (Tensor?)vars[4] ?? result.OldState!,
            result.Padding!,
        ]);
        ctx.save_data(SavedCall, call with { Result = null });
        return result.NewState is null ? [result.Output] : [result.Output, result.NewState];
    }

    /// <inheritdoc/>
    public override List<Tensor> backward(torch.autograd.AutogradContext ctx, List<Tensor> grad_outputs)
    {
        var call = (Call)ctx.get_data(SavedCall);
        int errorInput = System.Numerics.BitOperations.TrailingZeroCount((int)call.Wanted);
        return BackwardGuard.Run(ctx, grad_outputs, InputCount, errorInput, call.Operator, (saved, grads) =>
        {
            Tensor state = saved[4]!;
            Tensor? padding = saved[5] is { } rows ? Rows(rows) : null;
            Tensor q = WithoutPadding(saved[0]!, padding);
            Tensor k = WithoutPadding(saved[1]!, padding);
            Tensor v = WithoutPadding(saved[2]!, padding);
            Tensor? gradOutput = grads[0] is { } flat
                ? WithoutPadding(flat.reshape(v.size(0), v.size(1), 1, v.size(3)), padding)
                : null;
            Tensor? gradStates = grads.Count > 1 && grads[1] is { } gradState ? gradState.unsqueeze(2) : null;
            Gradients gradients = Kernels.Backward(
                q,
                k,
                v,
                saved[3]!,
                state.to(Kernels.StateType(v.dtype)),
                gradOutput,
                gradStates,
                call.Wanted,
                s_oneToken);
            return [gradients.Q, gradients.K, gradients.V, gradients.Rates, gradients.History?.to(state.dtype), null];
        });
    }

    private static Inputs Wanted(Tensor q, Tensor k, Tensor v, Tensor rates) =>
        (q.requires_grad ? Inputs.Q : Inputs.None) | (k.requires_grad ? Inputs.K : Inputs.None)
        | (v.requires_grad ? Inputs.V : Inputs.None) | (rates.requires_grad ? Inputs.Rates : Inputs.None);

    /// <summary>A mask [B] in the shape that broadcasts over [B, H, ., .].</summary>
    private static Tensor Rows(Tensor mask) => mask.reshape(-1, 1, 1, 1);

    /// <summary>
    /// Zeros in the padding rows, whose content may be anything: with zeros, and no NaN times zero, they add nothing to
    /// the gradient of the rates and get none themselves.
    /// </summary>
    private static Tensor WithoutPadding(Tensor tensor, Tensor? padding)
    {
        if (padding is null)
        {
            return tensor;
        }

        using Scalar zero = 0.ToScalar();
        return tensor.masked_fill(padding, zero);
    }

    private sealed record Result(Tensor Output, Tensor? NewState, Tensor? OldState, Tensor? Padding);

    private sealed record Call(string Operator, Inputs Wanted, Result? Result);
}
