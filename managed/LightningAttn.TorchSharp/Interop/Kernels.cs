using TorchSharp;
using static TorchSharp.torch;

namespace LightningAttn.Interop;

/// <summary>What a call of the operator takes besides tensors.</summary>
/// <param name="BlockSize">Tokens per returned state.</param>
/// <param name="Scale">Factor of the output.</param>
/// <param name="BlockStates">Whether the states before every block are returned, or the final one alone.</param>
/// <param name="AllowTf32">Whether products of float32 tensors on CUDA may round their factors to tf32.</param>
internal sealed record AttentionOptions(long BlockSize, double Scale, bool BlockStates, bool AllowTf32 = false)
{
    /// <summary>Of the thread that makes the call: its backward pass runs on another one.</summary>
    internal CudaPath CudaPath { get; } = Kernels.CudaPath;

    internal long StateCount(long tokens) => BlockStates ? Integer.CeilDiv(tokens, BlockSize) + 1 : 1;
}

/// <summary>The inputs of the operator whose gradients are wanted.</summary>
[Flags]
internal enum Inputs
{
    None = 0,
    Q = 1,
    K = 2,
    V = 4,
    Rates = 8,
    History = 16,
}

/// <summary>Gradients of the operator's inputs; null where not wanted.</summary>
internal readonly record struct Gradients(Tensor? Q, Tensor? K, Tensor? V, Tensor? Rates, Tensor? History);

/// <summary>
/// The native calls on tensors. Arguments are checked by the public functions; <c>rates</c> is [Hv], contiguous, of the
/// state type. Every method is to be called inside a dispose scope, which roots the temporaries during the call and
/// frees them after it, and with gradient recording off.
/// </summary>
internal static unsafe partial class Kernels
{
    /// <summary>torch's CPU allocator aligns to less than the ABI asks of a workspace.</summary>
    private const long WorkspaceAlignment = 256;

    /// <summary>The path of this thread's calls and of their backward passes, for tests and benchmarks.</summary>
    [ThreadStatic]
    internal static CudaPath CudaPath;

    /// <summary>The type of states, rates and arithmetic for tensors of <paramref name="dtype"/>.</summary>
    internal static ScalarType StateType(ScalarType dtype) =>
        dtype == ScalarType.Float64 ? ScalarType.Float64 : ScalarType.Float32;

    /// <summary>Whether torch allows tf32 in the matrix products of such tensors.</summary>
    internal static bool AllowsTf32(ScalarType dtype, DeviceType deviceType) =>
        dtype == ScalarType.Float32 && deviceType == DeviceType.CUDA && torch.backends.cuda.matmul.allow_tf32;

    /// <summary>Output [B, Hv, N, E] and states [B, Hv, state count, D, E].</summary>
    internal static (Tensor Output, Tensor States) Forward(
        Tensor q, Tensor k, Tensor v, Tensor rates, Tensor? history, AttentionOptions options)
    {
        Problem problem = DescribeProblem(q, v, options);
        ScalarType stateType = StateType(v.dtype);
        Tensor output = Empty([problem.Batch, problem.HeadsV, problem.Tokens, problem.HeadDimV], v.dtype, v);
        Tensor states = Empty(
            [problem.Batch, problem.HeadsV, problem.StateCount, problem.HeadDimQk, problem.HeadDimV], stateType, v);
        if (problem.Batch == 0)
        {
            return (output, states);
        }

        if (problem.Tokens == 0)
        {
            if (history is null)
            {
                states.zero_();
            }
            else
            {
                states.copy_(history.unsqueeze(2));
            }

            return (output, states);
        }

        q = WithUnitStride(q);
        k = WithUnitStride(k);
        v = WithUnitStride(v);
        var parameters = new ForwardParams
        {
            StructSize = (ulong)sizeof(ForwardParams),
            Problem = problem,
            Q = ViewOf(q),
            K = ViewOf(k),
            V = ViewOf(v),
            DecayRate = TorchNative.Data(rates),
            History = StateViewOf(history),
            Output = ViewOf(output),
            States = StatesViewOf(states),
            Stream = TorchNative.CurrentStream(output),
        };
        Run(&parameters, output);
        GC.KeepAlive(q);
        GC.KeepAlive(k);
        GC.KeepAlive(v);
        GC.KeepAlive(rates);
        GC.KeepAlive(history);
        GC.KeepAlive(output);
        GC.KeepAlive(states);
        return (output, states);
    }

    /// <summary>
    /// The wanted gradients, given those of the output [B, Hv, N, E] and of the states [B, Hv, state count, D, E];
    /// a null gradient stands for zeros.
    /// </summary>
    internal static Gradients Backward(
        Tensor q,
        Tensor k,
        Tensor v,
        Tensor rates,
        Tensor? history,
        Tensor? gradOutput,
        Tensor? gradStates,
        Inputs wanted,
        AttentionOptions options)
    {
        Problem problem = DescribeProblem(q, v, options);
        ScalarType stateType = StateType(v.dtype);
        long[] keySize = [problem.Batch, problem.HeadsQk, problem.Tokens, problem.HeadDimQk];
        var gradients = new Gradients(
            EmptyIf(Inputs.Q, keySize, v.dtype),
            EmptyIf(Inputs.K, keySize, v.dtype),
            EmptyIf(Inputs.V, [problem.Batch, problem.HeadsV, problem.Tokens, problem.HeadDimV], v.dtype),
            EmptyIf(Inputs.Rates, [problem.HeadsV], stateType),
            EmptyIf(
                Inputs.History, [problem.Batch, problem.HeadsV, problem.HeadDimQk, problem.HeadDimV], stateType));
        if (problem.Batch == 0 || problem.Tokens == 0)
        {
            // The output is empty, and the one state of a call without tokens is the history itself.
            gradients.Rates?.zero_();
            if (gradStates is null)
            {
                gradients.History?.zero_();
            }
            else
            {
                gradients.History?.copy_(gradStates.select(2, -1));
            }

            return gradients;
        }

        q = WithUnitStride(q);
        k = WithUnitStride(k);
        v = WithUnitStride(v);
        gradOutput = gradOutput is null ? null : WithUnitStride(OfType(gradOutput, v.dtype));
        gradStates = gradStates is null ? null : OfType(gradStates, stateType);
        var parameters = new BackwardParams
        {
            StructSize = (ulong)sizeof(BackwardParams),
            Problem = problem,
            Q = ViewOf(q),
            K = ViewOf(k),
            V = ViewOf(v),
            DecayRate = TorchNative.Data(rates),
            History = StateViewOf(history),
            GradOutput = ViewOf(gradOutput),
            GradStates = StatesViewOf(gradStates),
            GradQ = ViewOf(gradients.Q),
            GradK = ViewOf(gradients.K),
            GradV = ViewOf(gradients.V),
            GradHistory = StateViewOf(gradients.History),
            GradDecayRate = gradients.Rates is null ? 0 : TorchNative.Data(gradients.Rates),
            Stream = TorchNative.CurrentStream(v),
        };
        Run(&parameters, v);
        GC.KeepAlive(q);
        GC.KeepAlive(k);
        GC.KeepAlive(v);
        GC.KeepAlive(rates);
        GC.KeepAlive(history);
        GC.KeepAlive(gradOutput);
        GC.KeepAlive(gradStates);
        GC.KeepAlive(gradients.Q);
        GC.KeepAlive(gradients.K);
        GC.KeepAlive(gradients.V);
        GC.KeepAlive(gradients.Rates);
        GC.KeepAlive(gradients.History);
        return gradients;

        Tensor? EmptyIf(Inputs input, long[] size, ScalarType dtype) =>
            wanted.HasFlag(input) ? Empty(size, dtype, v) : null;
    }

    /// <summary>
    /// Output [B, Hv * E]; row b reads slot b of <paramref name="stateIn"/> and writes it to
    /// <paramref name="stateOut"/>, or slot <c>slots[b]</c> where slots are given.
    /// </summary>
    internal static Tensor Decode(
        Tensor q, Tensor k, Tensor v, Tensor rates, Tensor stateIn, Tensor stateOut, Tensor? slots)
    {
        Tensor output = Empty([v.size(0), v.size(1) * v.size(3)], v.dtype, v);
        Decode(q, k, v, rates, stateIn, stateOut, slots, output);
        return output;
    }

    /// <summary>The same into a given tensor, whose rows have no gaps. Needs no dispose scope.</summary>
    internal static void Decode(
        Tensor q, Tensor k, Tensor v, Tensor rates, Tensor stateIn, Tensor stateOut, Tensor? slots, Tensor output)
    {
        if (v.size(0) == 0)
        {
            return;
        }

        Tensor unitQ = WithUnitStride(q);
        Tensor unitK = WithUnitStride(k);
        Tensor unitV = WithUnitStride(v);
        Tensor? denseSlots = slots is null || slots.is_contiguous() ? slots : slots.contiguous();
        try
        {
            DecodePrepared(unitQ, unitK, unitV, rates, stateIn, stateOut, denseSlots, output);
        }
        finally
        {
            DisposeCopy(unitQ, q);
            DisposeCopy(unitK, k);
            DisposeCopy(unitV, v);
            DisposeCopy(denseSlots, slots);
        }
    }

    private static void DisposeCopy(Tensor? copy, Tensor? original)
    {
        if (!ReferenceEquals(copy, original))
        {
            copy?.Dispose();
        }
    }

    private static void DecodePrepared(
        Tensor q, Tensor k, Tensor v, Tensor rates, Tensor stateIn, Tensor stateOut, Tensor? slots, Tensor output)
    {
        DecodeParams parameters = DescribeDecode(k, v, rates, stateIn, slots);
        parameters.Q = ViewOf(q);
        parameters.Output = new View
        {
            Data = TorchNative.Data(output),
            StrideB = output.stride(0),
            StrideH = parameters.HeadDimV,
            StrideN = parameters.HeadDimV,
        };
        parameters.StateOut = ReferenceEquals(stateOut, stateIn) ? parameters.StateIn : StateViewOf(stateOut);
        NativeStatus.ThrowIfFailed(NativeMethods.lattn_decode(&parameters));
        GC.KeepAlive(q);
        GC.KeepAlive(k);
        GC.KeepAlive(v);
        GC.KeepAlive(rates);
        GC.KeepAlive(stateIn);
        GC.KeepAlive(stateOut);
        GC.KeepAlive(slots);
        GC.KeepAlive(output);
    }

    /// <summary>
    /// The outputs [B, Td, Hv * E] of the tokens of q, k [B, Hk, Td, D] and v [B, Hv, Td, E]; the pool stays as it is.
    /// </summary>
    internal static Tensor DecodeVerify(Tensor q, Tensor k, Tensor v, Tensor rates, Tensor pool, Tensor slots)
    {
        Tensor output = Empty([v.size(0), v.size(2), v.size(1) * v.size(3)], v.dtype, v);
        if (output.numel() == 0)
        {
            return output;
        }

        q = WithUnitStride(q);
        k = WithUnitStride(k);
        v = WithUnitStride(v);
        slots = slots.contiguous();
        DecodeParams parameters = DescribeDecode(k, v, rates, pool, slots);
        parameters.Q = ViewOf(q);
        parameters.Output = new View
        {
            Data = TorchNative.Data(output),
            StrideB = output.stride(0),
            StrideH = parameters.HeadDimV,
            StrideN = output.stride(1),
        };
        NativeStatus.ThrowIfFailed(NativeMethods.lattn_decode(&parameters));
        GC.KeepAlive(q);
        GC.KeepAlive(k);
        GC.KeepAlive(v);
        GC.KeepAlive(rates);
        GC.KeepAlive(pool);
        GC.KeepAlive(slots);
        GC.KeepAlive(output);
        return output;
    }

    /// <summary>Row b's slot takes the first <c>accepted[b]</c> tokens of k [B, Hk, Td, D] and v [B, Hv, Td, E].</summary>
    internal static void DecodeCommit(Tensor k, Tensor v, Tensor rates, Tensor pool, Tensor slots, Tensor accepted)
    {
        if (v.size(0) == 0)
        {
            return;
        }

        k = WithUnitStride(k);
        v = WithUnitStride(v);
        slots = slots.contiguous();
        accepted = accepted.contiguous();
        DecodeParams parameters = DescribeDecode(k, v, rates, pool, slots);
        parameters.StateOut = parameters.StateIn;
        parameters.AcceptedDtype = (int)accepted.dtype;
        parameters.Accepted = TorchNative.Data(accepted);
        NativeStatus.ThrowIfFailed(NativeMethods.lattn_decode(&parameters));
        GC.KeepAlive(k);
        GC.KeepAlive(v);
        GC.KeepAlive(rates);
        GC.KeepAlive(pool);
        GC.KeepAlive(slots);
        GC.KeepAlive(accepted);
    }

    /// <summary>What every decode call has: q, the output and what is written of the states are the caller's.</summary>
    private static DecodeParams DescribeDecode(Tensor k, Tensor v, Tensor rates, Tensor stateIn, Tensor? slots) =>
        new()
        {
            StructSize = (ulong)sizeof(DecodeParams),
            Batch = v.size(0),
            HeadsQk = k.size(1),
            HeadsV = v.size(1),
            HeadDimQk = k.size(3),
            HeadDimV = v.size(3),
            SlotCount = stateIn.size(0),
            Scale = 1,
            Dtype = (int)v.dtype,
            StateDtype = (int)stateIn.dtype,
            SlotDtype = slots is null ? 0 : (int)slots.dtype,
            DeviceType = (int)v.device_type,
            DeviceIndex = v.device_index,
            Tokens = (int)v.size(2),
            K = ViewOf(k),
            V = ViewOf(v),
            DecayRate = TorchNative.Data(rates),
            StateIn = StateViewOf(stateIn),
            Slots = slots is null ? 0 : TorchNative.Data(slots),
            Stream = TorchNative.CurrentStream(v),
        };

    /// <summary>An uninitialised contiguous tensor of the state's shape, type and device.</summary>
    internal static Tensor NewState(Tensor state) =>
        Empty([state.size(0), state.size(1), state.size(2), state.size(3)], state.dtype, state);

    /// <summary>The kernel that such a call would run; throws what the call would throw if there is none.</summary>
    internal static string Describe(
        Operation operation,
        ScalarType dtype,
        ScalarType stateType,
        DeviceType deviceType,
        int deviceIndex,
        long headDimQk,
        long headDimV)
    {
        const int NameBytes = 256;
        byte* name = stackalloc byte[NameBytes];
        var query = new SupportQuery
        {
            StructSize = (ulong)sizeof(SupportQuery),
            Operation = (int)operation,
            Dtype = (int)dtype,
            StateDtype = (int)stateType,
            DeviceType = (int)deviceType,
            DeviceIndex = deviceIndex,
            CudaPath = (int)CudaPath,
            AllowTf32 = AllowsTf32(dtype, deviceType) ? 1 : 0,
            HeadDimQk = headDimQk,
            HeadDimV = headDimV,
        };
        NativeStatus.ThrowIfFailed(NativeMethods.lattn_describe(&query, name, NameBytes));
        return System.Runtime.InteropServices.Marshal.PtrToStringUTF8((nint)name) ?? "";
    }

    /// <summary>The tensor itself where its last axis can be read as contiguous, else a contiguous copy.</summary>
    private static Tensor WithUnitStride(Tensor tensor)
    {
        int last = (int)tensor.dim() - 1;
        return tensor.stride(last) == 1 || tensor.size(last) == 1 ? tensor : tensor.contiguous();
    }

    private static Tensor OfType(Tensor tensor, ScalarType dtype) =>
        tensor.dtype == dtype ? tensor : tensor.to(dtype);

    private static Tensor Empty(long[] size, ScalarType dtype, Tensor like) =>
        torch.empty(size, dtype: dtype, device: like.device);

    internal static Problem DescribeProblem(Tensor q, Tensor v, AttentionOptions options) =>
        DescribeHeads(q, v, options) with
        {
            Batch = q.size(0),
            Tokens = q.size(2),
            StateCount = options.StateCount(q.size(2)),
        };

    /// <summary>What packed and padded batches say alike: q [_, Hk, ..., D], v [_, Hv, ..., E].</summary>
    private static Problem DescribeHeads(Tensor q, Tensor v, AttentionOptions options) => new()
    {
        HeadsQk = q.size(1),
        HeadsV = v.size(1),
        HeadDimQk = q.size(-1),
        HeadDimV = v.size(-1),
        BlockSize = options.BlockSize,
        Scale = options.Scale,
        Dtype = (int)v.dtype,
        DeviceType = (int)v.device_type,
        DeviceIndex = v.device_index,
        CudaPath = (int)options.CudaPath,
        AllowTf32 = options.AllowTf32 ? 1 : 0,
    };

    internal static View ViewOf(Tensor? tensor) => tensor is null ? default : new View
    {
        Data = TorchNative.Data(tensor),
        StrideB = tensor.stride(0),
        StrideH = tensor.stride(1),
        StrideN = tensor.stride(2),
    };

    private static StateView StateViewOf(Tensor? tensor) => tensor is null ? default : new StateView
    {
        Data = TorchNative.Data(tensor),
        StrideB = tensor.stride(0),
        StrideH = tensor.stride(1),
        StrideD = tensor.stride(2),
        StrideE = tensor.stride(3),
    };

    internal static StatesView StatesViewOf(Tensor? tensor) => tensor is null ? default : new StatesView
    {
        Data = TorchNative.Data(tensor),
        StrideB = tensor.stride(0),
        StrideH = tensor.stride(1),
        StrideBlock = tensor.stride(2),
        StrideD = tensor.stride(3),
        StrideE = tensor.stride(4),
    };

    private static void Run(ForwardParams* parameters, Tensor like)
    {
        NativeStatus.ThrowIfFailed(NativeMethods.lattn_forward_workspace_size(parameters, &parameters->WorkspaceBytes));
        Tensor? workspace = Workspace(parameters->WorkspaceBytes, like, out parameters->Workspace);
        NativeStatus.ThrowIfFailed(NativeMethods.lattn_forward(parameters));
        GC.KeepAlive(workspace);
    }

    private static void Run(BackwardParams* parameters, Tensor like)
    {
        NativeStatus.ThrowIfFailed(
            NativeMethods.lattn_backward_workspace_size(parameters, &parameters->WorkspaceBytes));
        Tensor? workspace = Workspace(parameters->WorkspaceBytes, like, out parameters->Workspace);
        NativeStatus.ThrowIfFailed(NativeMethods.lattn_backward(parameters));
        GC.KeepAlive(workspace);
    }

    private static Tensor? Workspace(ulong bytes, Tensor like, out nint address)
    {
        address = 0;
        if (bytes == 0)
        {
            return null;
        }

        Tensor workspace = Empty([checked((long)bytes) + WorkspaceAlignment - 1], ScalarType.Byte, like);
        address = (TorchNative.Data(workspace) + (nint)WorkspaceAlignment - 1) & ~((nint)WorkspaceAlignment - 1);
        return workspace;
    }
}
