using LightningAttn.Interop;
using TorchSharp;
using static TorchSharp.torch;

namespace LightningAttn.Autograd;

/// <summary>
/// The differentiable form of the gated norm. Inputs: x, gate, weight, and a <see cref="Call"/>. Saved: the input
/// tensors; the mean squares are computed again in the backward pass.
/// </summary>
internal sealed class GatedNorm : torch.autograd.MultiTensorFunction<GatedNorm>
{
    private const int InputCount = 4;
    private const string SavedCall = "call";
    private const string OperatorName = "the gated norm of a LightningAttention layer";

    /// <inheritdoc/>
    public override string Name => nameof(GatedNorm);

    /// <summary>Output, recorded for the backward pass. To be called inside a dispose scope.</summary>
    internal static Tensor Record(Tensor x, Tensor gate, Tensor weight, GatedNormOptions options)
    {
        Tensor output;
        using (torch.no_grad())
        {
            output = Kernels.GatedNormForward(x, gate, weight, options);
        }

        GatedNormInputs wanted = Wanted(x, GatedNormInputs.X) | Wanted(gate, GatedNormInputs.Gate)
            | Wanted(weight, GatedNormInputs.Weight);
        return apply(
            LightningAttention.Aliased(x),
            LightningAttention.Aliased(gate),
            LightningAttention.Aliased(weight),
            new Call(options, wanted, output))[0];
    }

    /// <inheritdoc/>
    public override List<Tensor> forward(torch.autograd.AutogradContext ctx, params object[] vars)
    {
        var call = (Call)vars[3];
        ctx.set_materialize_grads(false);
        ctx.save_for_backward([(Tensor)vars[0], (Tensor)vars[1], (Tensor)vars[2]]);
        ctx.save_data(SavedCall, call with { Output = null });
        return [call.Output!];
    }

    /// <inheritdoc/>
    public override List<Tensor> backward(torch.autograd.AutogradContext ctx, List<Tensor> grad_outputs)
    {
        var call = (Call)ctx.get_data(SavedCall);
        int errorInput = System.Numerics.BitOperations.TrailingZeroCount((int)call.Wanted);
        return BackwardGuard.Run(ctx, grad_outputs, InputCount, errorInput, OperatorName, (saved, grads) =>
        {
            if (grads[0] is not { } gradOutput)
            {
                return [null, null, null, null];
            }

            GatedNormGradients gradients = Kernels.GatedNormBackward(
                saved[0]!, saved[1]!, saved[2]!, gradOutput, call.Wanted, call.Options);
            return [gradients.X, gradients.Gate, gradients.Weight, null];
        });
    }

    private static GatedNormInputs Wanted(Tensor tensor, GatedNormInputs input) =>
        tensor.requires_grad ? input : GatedNormInputs.None;

    /// <summary>The one argument that is no tensor; its output is dropped once forward has handed it on.</summary>
    private sealed record Call(GatedNormOptions Options, GatedNormInputs Wanted, Tensor? Output);
}
