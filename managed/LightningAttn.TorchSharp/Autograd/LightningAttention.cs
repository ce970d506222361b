using LightningAttn.Interop;
using TorchSharp;
using static TorchSharp.torch;

namespace LightningAttn.Autograd;

/// <summary>
/// The differentiable form of the operator. Inputs: q, k, v, rates [Hv], history or null, and a <see cref="Call"/>.
/// Saved: the input tensors; everything else is computed again in the backward pass.
/// </summary>
internal sealed class LightningAttention : torch.autograd.MultiTensorFunction<LightningAttention>
{
    private const int InputCount = 6;
    private const string SavedCall = "call";
    private const string OperatorName = nameof(Functional.lightning_attention);

    /// <inheritdoc/>
    public override string Name => nameof(LightningAttention);

    /// <summary>Output and states, recorded for the backward pass. To be called inside a dispose scope.</summary>
    internal static (Tensor Output, Tensor States) Record(
        Tensor q, Tensor k, Tensor v, Tensor rates, Tensor? history, AttentionOptions options)
    {
        // Before apply(), because an exception inside it leaks the node for good.
        Result result;
        using (torch.no_grad())
        {
            (Tensor output, Tensor states) = Kernels.Forward(q, k, v, rates, history, options);
            result = new Result(output, states);
        }

        var wanted = Wanted(q, Inputs.Q) | Wanted(k, Inputs.K) | Wanted(v, Inputs.V) | Wanted(rates, Inputs.Rates)
            | (history is null ? Inputs.None : Wanted(history, Inputs.History));
        List<Tensor> outputs = apply(
            Aliased(q), Aliased(k), Aliased(v), rates, history!, new Call(options, wanted, result));
        return (outputs[0], outputs[1]);
    }

    /// <inheritdoc/>
    public override List<Tensor> forward(torch.autograd.AutogradContext ctx, params object[] vars)
    {
        var call = (Call)vars[5];
        ctx.set_materialize_grads(false);
        ctx.save_for_backward([(Tensor)vars[0], (Tensor)vars[1], (Tensor)vars[2], (Tensor)vars[3], (Tensor)vars[4]]);
        ctx.save_data(SavedCall, call with { Result = null });
        return [call.Result!.Output, call.Result.States];
    }

    /// <inheritdoc/>
    public override List<Tensor> backward(torch.autograd.AutogradContext ctx, List<Tensor> grad_outputs)
    {
        var call = (Call)ctx.get_data(SavedCall);
        int errorInput = System.Numerics.BitOperations.TrailingZeroCount((int)call.Wanted);
        return BackwardGuard.Run(ctx, grad_outputs, InputCount, errorInput, OperatorName, (saved, grads) =>
        {
            Gradients gradients = Kernels.Backward(
                saved[0]!, saved[1]!, saved[2]!, saved[3]!, saved[4], grads[0], grads[1], call.Wanted, call.Options);
            return [gradients.Q, gradients.K, gradients.V, gradients.Rates, gradients.History, null];
        });
    }

    /// <summary>
    /// A leaf by way of a view. Autograd takes a gradient over as the leaf's <c>grad</c> where nobody else holds the
    /// tensor, and copies it otherwise; <see cref="BackwardGuard"/> holds what it returns. The view's backward pass
    /// makes a new tensor of the same memory.
    /// </summary>
    internal static Tensor Aliased(Tensor tensor) =>
        tensor.requires_grad && tensor.is_leaf ? tensor.view_as(tensor) : tensor;

    private static Inputs Wanted(Tensor tensor, Inputs input) => tensor.requires_grad ? input : Inputs.None;

    private sealed record Result(Tensor Output, Tensor States);

    /// <summary>The one argument that is no tensor; its result is dropped once forward has handed it on.</summary>
    private sealed record Call(AttentionOptions Options, Inputs Wanted, Result? Result);
}
