using TorchSharp;
using static TorchSharp.torch;

namespace LightningAttn.Autograd;

/// <summary>
/// The gradients of an operator under <c>create_graph: true</c>, on a node whose backward pass fails: without it they
/// would be constants, and whatever differentiates them would silently lack a term. Inputs: the tensors that the
/// gradients depend on, and a <see cref="Call"/>.
/// </summary>
/// <remarks>
/// The node has edges to the tensors themselves, since libtorch runs only the nodes that lie on a path to what
/// <c>torch.autograd.grad</c> is asked for.
/// </remarks>
internal sealed class OnceDifferentiable : torch.autograd.MultiTensorFunction<OnceDifferentiable>
{
    private const string SavedCall = "call";

    /// <inheritdoc/>
    public override string Name => nameof(OnceDifferentiable);

    /// <summary>
    /// The gradients, null where there is none, with an error in place of their own derivatives. To be called inside a
    /// dispose scope and with gradients being recorded.
    /// </summary>
    /// <param name="operatorName">The operator, for the message.</param>
    /// <param name="gradients">Computed without being recorded.</param>
    /// <param name="sources">What they were computed from; null entries are skipped.</param>
    internal static Tensor?[] Attach(string operatorName, Tensor?[] gradients, IEnumerable<Tensor?> sources)
    {
        Tensor[] variables = [.. sources.Where(static source => source is { requires_grad: true })!];
        Tensor[] defined = [.. gradients.Where(static gradient => gradient is not null)!];
        if (variables.Length == 0 || defined.Length == 0)
        {
            return gradients;
        }

        var call = new Call(operatorName, variables.Length + 1, defined);
        var attached = new Queue<Tensor>(apply([.. variables, call]));
        return [.. gradients.Select(gradient => gradient is null ? null : attached.Dequeue())];
    }

    /// <inheritdoc/>
    public override List<Tensor> forward(torch.autograd.AutogradContext ctx, params object[] vars)
    {
        var call = (Call)vars[^1];
        ctx.set_materialize_grads(false);
        ctx.save_data(SavedCall, call with { Gradients = null });
        return [.. call.Gradients!];
    }

    /// <inheritdoc/>
    public override List<Tensor> backward(torch.autograd.AutogradContext ctx, List<Tensor> grad_outputs)
    {
        var call = (Call)ctx.get_data(SavedCall);
        return BackwardGuard.Run(ctx, grad_outputs, call.InputCount, errorInput: 0, call.Operator, (_, _) =>
        {
            string message = $"Second derivatives of {call.Operator} are not implemented: a gradient of it, computed "
                + "with create_graph: true, is differentiated again. Detach the gradient if it is meant as a constant.";
            WriteError(message);
            throw new NotSupportedException(message);
        });
    }

    /// <summary>
    /// Where <c>torch.autograd.grad</c> was called the process ends with libtorch's message about a shape, and this is
    /// all that is seen of the cause.
    /// </summary>
    private static void WriteError(string message)
    {
        try
        {
            Console.Error.WriteLine($"LightningAttn: {message}");
        }
        catch (IOException)
        {
            // Nobody reads it.
        }
    }

    /// <summary>The one argument that is no tensor; its gradients are dropped once forward has handed them on.</summary>
    private sealed record Call(string Operator, int InputCount, Tensor[]? Gradients);
}
