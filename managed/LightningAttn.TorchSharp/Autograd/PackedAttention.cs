using LightningAttn.Interop;
using TorchSharp;
using static TorchSharp.torch;

namespace LightningAttn.Autograd;

/// <summary>
/// The differentiable form of the operator on packed sequences. Inputs: q, k, v, rates [Hv], and a <see cref="Call"/>.
/// Saved: the input tensors and the offsets.
/// </summary>
internal sealed class PackedAttention : torch.autograd.MultiTensorFunction<PackedAttention>
{
    private const int InputCount = 5;
    private const string SavedCall = "call";
    private const string OperatorName = nameof(Functional.lightning_attention_varlen);

    /// <inheritdoc/>
    public override string Name => nameof(PackedAttention);

    /// <summary>Output, recorded for the backward pass. To be called inside a dispose scope.</summary>
    internal static Tensor Record(
        Tensor q, Tensor k, Tensor v, Tensor rates, Tensor offsets, AttentionOptions options)
    {
        Result result;
        using (torch.no_grad())
        {
            result = new Result(
                Kernels.ForwardPacked(q, k, v, rates, offsets, states: null, options), offsets.alias());
        }

        Inputs wanted = Wanted(q, Inputs.Q) | Wanted(k, Inputs.K) | Wanted(v, Inputs.V) | Wanted(rates, Inputs.Rates);
        return apply(
            LightningAttention.Aliased(q),
            LightningAttention.Aliased(k),
            LightningAttention.Aliased(v),
            rates,
            new Call(options, wanted, result))[0];
    }

    /// <inheritdoc/>
    public override List<Tensor> forward(torch.autograd.AutogradContext ctx, params object[] vars)
    {
        var call = (Call)vars[4];
        ctx.set_materialize_grads(false);
        ctx.save_for_backward(
            [(Tensor)vars[0], (Tensor)vars[1], (Tensor)vars[2], (Tensor)vars[3], call.Result!.Offsets]);
        ctx.save_data(SavedCall, call with { Result = null });
        return [call.Result.Output];
    }

    /// <inheritdoc/>
    public override List<Tensor> backward(torch.autograd.AutogradContext ctx, List<Tensor> grad_outputs)
    {
        var call = (Call)ctx.get_data(SavedCall);
        int errorInput = System.Numerics.BitOperations.TrailingZeroCount((int)call.Wanted);
        return BackwardGuard.Run(ctx, grad_outputs, InputCount, errorInput, OperatorName, (saved, grads) =>
        {
            Gradients gradients = Kernels.BackwardPacked(
                saved[0]!, saved[1]!, saved[2]!, saved[3]!, saved[4]!, grads[0], call.Wanted, call.Options);
            return [gradients.Q, gradients.K, gradients.V, gradients.Rates, null];
        });
    }

    private static Inputs Wanted(Tensor tensor, Inputs input) => tensor.requires_grad ? input : Inputs.None;

    private sealed record Result(Tensor Output, Tensor Offsets);

    /// <summary>The one argument that is no tensor; its result is dropped once forward has handed it on.</summary>
    private sealed record Call(AttentionOptions Options, Inputs Wanted, Result? Result);
}
