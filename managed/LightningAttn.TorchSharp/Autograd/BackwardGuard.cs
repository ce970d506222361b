using System.Diagnostics;
using TorchSharp;
using static TorchSharp.torch;

namespace LightningAttn.Autograd;

/// <summary>What every backward callback of this library must do to be safe under TorchSharp.</summary>
internal static class BackwardGuard
{
    // libtorch copies the returned gradients only after the managed callback has given up its raw handles, so they are
    // held until the next callback of this thread. Disposing them there also frees them on autograd's worker threads,
    // which have no dispose scope.
    [ThreadStatic]
    private static List<Tensor>? t_returned;

    /// <summary>The gradients of the node's outputs; null where undefined.</summary>
    internal delegate Tensor?[] Compute(IReadOnlyList<Tensor?> saved, IReadOnlyList<Tensor?> gradOutputs);

    /// <summary>
    /// Runs <paramref name="compute"/> on the saved tensors and the output gradients. Nothing may be thrown across
    /// libtorch's frames, which would abort the process: an exception is kept in
    /// <see cref="Native.LastBackwardError"/> and libtorch is given a gradient whose shape it must refuse, so that the
    /// caller's <c>backward()</c> throws. Under <c>create_graph: true</c> the gradients are those of
    /// <see cref="OnceDifferentiable"/>.
    /// </summary>
    /// <param name="context">The node's context.</param>
    /// <param name="gradOutputs">The output gradients; disposed here.</param>
    /// <param name="inputCount">Arguments of <c>apply</c>, tensors or not.</param>
    /// <param name="errorInput">An input that requires a gradient and has at least one axis.</param>
    /// <param name="operatorName">The operator, for the message.</param>
    /// <param name="compute">Returns one gradient per input, null where there is none.</param>
    internal static List<Tensor> Run(
        torch.autograd.AutogradContext context,
        List<Tensor> gradOutputs,
        int inputCount,
        int errorInput,
        string operatorName,
        Compute compute)
    {
        try
        {
            ReleaseReturned();
            using var scope = torch.NewDisposeScope();
            Tensor?[] saved = Defined(context.get_saved_variables());
            Tensor?[] grads = Defined(gradOutputs);
            Tensor?[] gradients;
            using (torch.no_grad())
            {
                gradients = compute(saved, grads);
            }

            // libtorch records what a backward pass does when create_graph is on, and only then.
            if (torch.is_grad_enabled())
            {
                gradients = OnceDifferentiable.Attach(operatorName, gradients, saved.Concat(grads));
            }

            foreach (Tensor? gradient in gradients)
            {
                gradient?.MoveToOuterDisposeScope();
            }

            return t_returned = new List<Tensor>(gradients!);
        }
        catch (Exception error)
        {
            Report(error);
            var refused = new Tensor[inputCount];
            refused[errorInput] = torch.zeros(Array.Empty<long>());
            return t_returned = [.. refused];
        }
        finally
        {
            DisposeAll(gradOutputs);
        }
    }

    private static void Report(Exception error)
    {
        Native.LastBackwardError = error;
        try
        {
            Trace.TraceError("LightningAttn: the backward pass failed: {0}", error);
        }
        catch (Exception)
        {
            // A listener's own fault must not reach libtorch either.
        }
    }

    private static void ReleaseReturned()
    {
        List<Tensor>? returned = t_returned;
        t_returned = null;
        DisposeAll(returned);
    }

    private static Tensor?[] Defined(List<Tensor> tensors) =>
        [.. tensors.Select(static tensor => tensor is null || tensor.IsInvalid ? null : tensor)];

    private static void DisposeAll(List<Tensor>? tensors)
    {
        if (tensors is null)
        {
            return;
        }

        foreach (Tensor? tensor in tensors)
        {
            tensor?.Dispose();
        }
    }
}
