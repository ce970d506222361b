namespace LightningAttn.Tests.Support;

/// <summary>
/// Activation checkpointing as users write it: the forward pass records nothing, the backward pass computes the layer
/// again and differentiates it. The layer takes one tensor; gradients of its parameters are accumulated where they lie.
/// </summary>
internal sealed class Checkpoint : torch.autograd.SingleTensorFunction<Checkpoint>
{
    private const string SavedLayer = "layer";

    public override string Name => nameof(Checkpoint);

    internal static Tensor Call(Func<Tensor, Tensor> layer, Tensor input) => apply(input, layer);

    public override Tensor forward(torch.autograd.AutogradContext ctx, params object[] vars)
    {
        var input = (Tensor)vars[0];
        var layer = (Func<Tensor, Tensor>)vars[1];
        ctx.set_materialize_grads(false);
        ctx.save_for_backward([input]);
        ctx.save_data(SavedLayer, layer);
        return layer(input);
    }

    public override List<Tensor> backward(torch.autograd.AutogradContext ctx, Tensor grad_output)
    {
        var layer = (Func<Tensor, Tensor>)ctx.get_data(SavedLayer);
        using var scope = torch.NewDisposeScope();
        Tensor input = ctx.get_saved_variables()[0].detach().requires_grad_(true);
        using (torch.enable_grad())
        {
            torch.autograd.backward([layer(input)], [grad_output]);
        }

        return [input.grad!.DetachFromDisposeScope(), null!];
    }
}
