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
    /// <param name="path">Of the forward pass.</param>
    /// <returns>The larger one of both passes: the forward pass has freed its own before the backward pass.</returns>
    public static long BytesOf(SequenceInputs inputs, Tensor[] results, long blockSize, CudaPath path)
    {
        var (q, v, states) = (inputs.Q, inputs.V, results[1]);
        var problem = new Problem
        {
            Batch = q.size(0),
            HeadsQk = q.size(1),
            HeadsV = v.size(1),
            Tokens = q.size(2),
            HeadDimQk = q.size(3),
            HeadDimV = v.size(3),
            BlockSize = blockSize,
            StateCount = states.size(2),
            Scale = 1,
            Dtype = (int)v.dtype,
            DeviceType = (int)v.device_type,
            DeviceIndex = v.device_index,
            CudaPath = (int)path,
        };
        var forward = new ForwardParams
        {
            StructSize = (ulong)sizeof(ForwardParams),
            Problem = problem,
            Q = ViewOf(q),
            K = ViewOf(inputs.K),
            V = ViewOf(v),
            DecayRate = TorchNative.Data(inputs.DecayRates),
            Output = ViewOf(results[0]),
            States = new StatesView
            {
                Data = TorchNative.Data(states),
                StrideB = states.stride(0),
                StrideH = states.stride(1),
                StrideBlock = states.stride(2),
                StrideD = states.stride(3),
                StrideE = states.stride(4),
            },
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
            GradOutput = ViewOf(inputs.GradOutput),
            GradQ = ViewOf(gradQ),
            GradK = ViewOf(gradK),
            GradV = ViewOf(gradV),
        };
        ulong backwardBytes;
        NativeStatus.ThrowIfFailed(NativeMethods.lattn_backward_workspace_size(&backward, &backwardBytes));
        return (long)Math.Max(bytes, backwardBytes);
    }

    private static View ViewOf(Tensor tensor) => new()
    {
        Data = TorchNative.Data(tensor),
        StrideB = tensor.stride(0),
        StrideH = tensor.stride(1),
        StrideN = tensor.stride(2),
    };
}
