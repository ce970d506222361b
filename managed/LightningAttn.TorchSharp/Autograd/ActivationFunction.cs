using LightningAttn.Interop;
using LightningAttn.Modules;
using TorchSharp;
using static TorchSharp.torch;

namespace LightningAttn.Autograd;

/// <summary>The differentiable form of an activation. Inputs: x, and a <see cref="Call"/>. Saved: x.</summary>
internal sealed class ActivationFunction : torch.autograd.MultiTensorFunction<ActivationFunction>
{
    private const int InputCount = 2;
    private const string SavedActivation = "activation";
    private const string OperatorName = "the activation of a LightningAttention layer";

    /// <inheritdoc/>
    public override string Name => nameof(ActivationFunction);

    /// <summary>activation(x), recorded for the backward pass; x is contiguous. To be called inside a dispose scope.</summary>
    internal static Tensor Record(Tensor x, Activation activation)
    {
        Tensor output;
        using (torch.no_grad())
        {
            output = Kernels.Activate(x, activation);
        }

        return apply(LightningAttention.Aliased(x), new Call(activation, output))[0];
    }

    /// <inheritdoc/>
    public override List<Tensor> forward(torch.autograd.AutogradContext ctx, params object[] vars)
    {
        var call = (Call)vars[1];
        ctx.set_materialize_grads(false);
        ctx.save_for_backward([(Tensor)vars[0]]);
        ctx.save_data(SavedActivation, call.Activation);
        return [call.Output];
    }

    /// <inheritdoc/>
    public override List<Tensor> backward(torch.autograd.AutogradContext ctx, List<Tensor> grad_outputs)
    {
        var activation = (Activation)ctx.get_data(SavedActivation);
        return BackwardGuard.Run(ctx, grad_outputs, InputCount, 0, OperatorName, (saved, grads) =>
            grads[0] is { } gradOutput
                ? [Kernels.ActivationBackward(saved[0]!, gradOutput, activation), null]
                : [null, null]);
    }

    /// <summary>The one argument that is no tensor.</summary>
    private sealed record Call(Activation Activation, Tensor Output);
}
