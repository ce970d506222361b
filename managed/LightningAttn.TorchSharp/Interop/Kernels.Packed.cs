using TorchSharp;
using static TorchSharp.torch;

namespace LightningAttn.Interop;

/// <summary>The states of a packed batch's sequences.</summary>
/// <param name="Pool">[slots, Hv, D, E].</param>
/// <param name="Slots">[n], contiguous, or null: slot b of sequence b.</param>
/// <param name="HasInitial">[n], contiguous, or null: every sequence starts from its slot's state.</param>
internal sealed record PackedStates(Tensor Pool, Tensor? Slots, Tensor? HasInitial);

/// <content>The calls on packed batches: q, k [T, Hk, D], v [T, Hv, E], offsets [n + 1] contiguous.</content>
internal static unsafe partial class Kernels
{
    /// <summary>Output [T, Hv, E]; with states their pool is updated in place.</summary>
    internal static Tensor ForwardPacked(
        Tensor q, Tensor k, Tensor v, Tensor rates, Tensor offsets, PackedStates? states, AttentionOptions options)
    {
        Tensor output = Empty([v.size(0), v.size(1), v.size(2)], v.dtype, v);
        q = WithUnitStride(q);
        k = WithUnitStride(k);
        v = WithUnitStride(v);
        var parameters = new ForwardParams
        {
            StructSize = (ulong)sizeof(ForwardParams),
            Problem = DescribePacked(q, v, offsets, options),
            Q = PackedViewOf(q),
            K = PackedViewOf(k),
            V = PackedViewOf(v),
            DecayRate = TorchNative.Data(rates),
            Output = PackedViewOf(output),
            Pool = PoolOf(states),
            Stream = TorchNative.CurrentStream(output),
        };
        Run(&parameters, output);
        GC.KeepAlive(q);
        GC.KeepAlive(k);
        GC.KeepAlive(v);
        GC.KeepAlive(rates);
        GC.KeepAlive(offsets);
        GC.KeepAlive(states?.Pool);
        GC.KeepAlive(states?.Slots);
        GC.KeepAlive(states?.HasInitial);
        GC.KeepAlive(output);
        return output;
    }

    /// <summary>The wanted gradients of a call without a pool, given that of the output [T, Hv, E].</summary>
    internal static Gradients BackwardPacked(
        Tensor q,
        Tensor k,
        Tensor v,
        Tensor rates,
        Tensor offsets,
        Tensor? gradOutput,
        Inputs wanted,
        AttentionOptions options)
    {
        long[] keySize = [q.size(0), q.size(1), q.size(2)];
        var gradients = new Gradients(
            EmptyIf(Inputs.Q, keySize, v.dtype),
            EmptyIf(Inputs.K, keySize, v.dtype),
            EmptyIf(Inputs.V, [v.size(0), v.size(1), v.size(2)], v.dtype),
            EmptyIf(Inputs.Rates, [v.size(1)], StateType(v.dtype)),
            History: null);
        q = WithUnitStride(q);
        k = WithUnitStride(k);
        v = WithUnitStride(v);
        gradOutput = gradOutput is null ? null : WithUnitStride(OfType(gradOutput, v.dtype));
        var parameters = new BackwardParams
        {
            StructSize = (ulong)sizeof(BackwardParams),
            Problem = DescribePacked(q, v, offsets, options),
            Q = PackedViewOf(q),
            K = PackedViewOf(k),
            V = PackedViewOf(v),
            DecayRate = TorchNative.Data(rates),
            GradOutput = PackedViewOf(gradOutput),
            GradQ = PackedViewOf(gradients.Q),
            GradK = PackedViewOf(gradients.K),
            GradV = PackedViewOf(gradients.V),
            GradDecayRate = gradients.Rates is null ? 0 : TorchNative.Data(gradients.Rates),
            Stream = TorchNative.CurrentStream(v),
        };
        Run(&parameters, v);
        GC.KeepAlive(q);
        GC.KeepAlive(k);
        GC.KeepAlive(v);
        GC.KeepAlive(rates);
        GC.KeepAlive(offsets);
        GC.KeepAlive(gradOutput);
        GC.KeepAlive(gradients.Q);
        GC.KeepAlive(gradients.K);
        GC.KeepAlive(gradients.V);
        GC.KeepAlive(gradients.Rates);
        return gradients;

        Tensor? EmptyIf(Inputs input, long[] size, ScalarType dtype) =>
            wanted.HasFlag(input) ? Empty(size, dtype, v) : null;
    }

    private static Problem DescribePacked(Tensor q, Tensor v, Tensor offsets, AttentionOptions options) =>
        DescribeHeads(q, v, options) with
        {
            Batch = offsets.size(0) - 1,
            Tokens = q.size(0),
            StateCount = 1,
            CuSeqlensDtype = (int)offsets.dtype,
            CuSeqlens = TorchNative.Data(offsets),
        };

    /// <summary>[T, H, X] seen as [1, H, T, X].</summary>
    private static View PackedViewOf(Tensor? tensor) => tensor is null ? default : new View
    {
        Data = TorchNative.Data(tensor),
        StrideH = tensor.stride(1),
        StrideN = tensor.stride(0),
    };

    private static Pool PoolOf(PackedStates? states) => states is null ? default : new Pool
    {
        States = StateViewOf(states.Pool),
        SlotCount = states.Pool.size(0),
        Slots = states.Slots is null ? 0 : TorchNative.Data(states.Slots),
        HasInitial = states.HasInitial is null ? 0 : TorchNative.Data(states.HasInitial),
        StateDtype = (int)states.Pool.dtype,
        SlotDtype = states.Slots is null ? 0 : (int)states.Slots.dtype,
    };
}
