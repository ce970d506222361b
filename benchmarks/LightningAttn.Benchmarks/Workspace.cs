using LightningAttn.Interop;
using static TorchSharp.torch;

namespace LightningAttn.Benchmarks;

/// <summary>
/// The device memory that the library asks for beyond inputs and results. It allocates nothing else, and TorchSharp has
/// no memory statistics to measure it by.
/// </summary>
internal static unsafe class Workspace
{
    /// <param name="inputs">Of the call.</param>
    /// <param name="results">Output, states and, if the backward pass is meant too, dq, dk and dv.</param>
    /// <param name="blockSize">Tokens per returned state.</param>
    /// <param name="path">Of both passes.</param>
    /// <returns>The larger one of both passes: the forward pass has freed its own before the backward pass.</returns>
    public static long BytesOf(SequenceInputs inputs, Tensor[] results, long blockSize, CudaPath path)
    {
        var (q, v, states) = (inputs.Q, inputs.V, results[1]);
        Kernels.CudaPath = path;
        var options = new AttentionOptions(
            blockSize, Scale: 1, states.size(2) > 1, Kernels.AllowsTf32(v.dtype, v.device_type));
        var problem = Kernels.DescribeProblem(q, v, options);
        var forward = new ForwardParams
        {
            StructSize = (ulong)sizeof(ForwardParams),
            Problem = problem,
            Q = Kernels.ViewOf(q),
            K = Kernels.ViewOf(inputs.K),
            V = Kernels.ViewOf(v),
            DecayRate = TorchNative.Data(inputs.DecayRates),
            Output = Kernels.ViewOf(results[0]),
            States = Kernels.StatesViewOf(states),
        };
        ulong bytes;
        NativeStatus.ThrowIfFailed(NativeMethods.lattn_forward_workspace_size(&forward, &bytes));
        if (results is not [_, _, var gradQ, var gradK, var gradV])
        {
            return (long)bytes;
        }

        var backward = new BackwardParams
        {
            StructSize = (ulong)sizeof(BackwardParams),
            Problem = problem,
            Q = forward.Q,
            K = forward.K,
            V = forward.V,
            DecayRate = forward.DecayRate,
            GradOutput = Kernels.ViewOf(inputs.GradOutput),
            GradQ = Kernels.ViewOf(gradQ),
            GradK = Kernels.ViewOf(gradK),
            GradV = Kernels.ViewOf(gradV),
        };
        ulong backwardBytes;
        NativeStatus.ThrowIfFailed(NativeMethods.lattn_backward_workspace_size(&backward, &backwardBytes));
        return (long)Math.Max(bytes, backwardBytes);
    }
}
