using LightningAttn.Interop;
using TorchSharp;
using static TorchSharp.torch;

namespace LightningAttn;

public static partial class Functional
{
    /// <summary>
    /// Lightning attention on a packed batch: n sequences of different lengths, one after the other, in one call.
    /// Sequence b has the tokens <c>cu_seqlens[b]</c> to <c>cu_seqlens[b + 1] - 1</c>, and each is computed as
    /// <see cref="lightning_attention"/> computes it alone:
    /// <code>
    /// S_t = exp(-s) S_(t-1) + k_t (x) v_t        S_0 = its state in the pool, or zeros
    /// o_t = scale * S_t^T q_t
    /// </code>
    /// With a pool the state after a sequence's last token replaces the one that it started from, so that a long prompt
    /// can be taken in pieces (chunked prefill) and decoding (<see cref="linear_decode_forward(Tensor, Tensor, Tensor,
    /// Tensor, Tensor, Tensor, long)"/>) goes on from the same slot. Without a pool sequences start from zeros, and the
    /// call is differentiable once with respect to q, k, v and ed; second derivatives are refused as by
    /// <see cref="lightning_attention"/>.
    /// </summary>
    /// <remarks>
    /// A sequence's result is bitwise the same alone and in any batch: the order of arithmetic depends on a token's
    /// position in its sequence only. Nothing synchronises on CUDA: lengths, slots and flags are read by the device
    /// alone, and a call with other lengths in the same memory is the same work for the host.
    /// <para>Tokens before <c>cu_seqlens[0]</c>, from <c>cu_seqlens[n]</c> on, or of a sequence whose slot is -1 are
    /// padding: their output and their gradients are zeros, whatever q, k and v hold there, and a sequence with slot
    /// -1 touches no state. An empty sequence leaves its slot as it is, or zeros it where has_initial_state is false.
    /// </para>
    /// <para>Offsets that decrease or lie outside 0 to T, slots outside the pool and slots that two sequences share are
    /// errors on the CPU. On CUDA, where seeing them would synchronise, offsets are clamped to 0 to T, a sequence that
    /// ends before it begins is empty, a slot outside the pool is as -1, and what two sequences with one slot leave
    /// there is undefined; with LATTN_DEBUG_SLOTS=1 in the environment (or the AppContext switch
    /// LightningAttn.DebugSlots on) all of that is an error there too. The in-place update is invisible to autograd's
    /// version counter.</para>
    /// <para>Arithmetic, strides and tf32 are as in <see cref="lightning_attention"/>; [T, H, D] parts of a fused
    /// projection are read in place.</para>
    /// </remarks>
    /// <param name="q">Queries [T, Hk, D], T tokens of all sequences: bfloat16, float16, float32, or float64 (CPU
    /// only). D: any size on the CPU, a multiple of 8 from 16 to 256 on CUDA.</param>
    /// <param name="k">Keys, as q.</param>
    /// <param name="v">Values [T, Hv, E] of q's type and device; Hk divides Hv. E may differ from D; its limits are the
    /// same.</param>
    /// <param name="ed">Decay rates s >= 0 in nats per token, [Hv], [Hv, 1, 1] or [1, Hv, 1, 1], float32 (float64 also
    /// allowed with float64 inputs). On the CPU the values are checked; on CUDA they are not.</param>
    /// <param name="cu_seqlens">[n + 1], int32 or int64, on the device of q: where each sequence begins, and where the
    /// last one ends. n may be 0.</param>
    /// <param name="state_pool">States [slots, Hv, D, E], float32, bfloat16 or float16 (float64 exactly for float64
    /// inputs), of any strides; updated in place, rounded once. Null: sequences start from zeros and their last states
    /// are not kept.</param>
    /// <param name="state_indices">The slot of each sequence, [n], int32 or int64, on the device of q; -1 is padding.
    /// Null: slot b of sequence b.</param>
    /// <param name="has_initial_state">[n], bool, on the device of q: false where a sequence starts from zeros and not
    /// from what its slot holds. Null: every sequence starts from its slot.</param>
    /// <param name="scale">Factor of the output.</param>
    /// <returns>[T, Hv, E] of v's type.</returns>
    /// <exception cref="ArgumentException">An argument has the wrong rank, size, type or device, a rate is negative,
    /// NaN or infinite (CPU), an offset or a slot is out of range, or two sequences have one slot (CPU), state_indices
    /// or has_initial_state is given without state_pool, or scale is not finite.</exception>
    /// <exception cref="InvalidOperationException">state_pool is given and an argument requires a gradient while
    /// gradients are recorded.</exception>
    /// <exception cref="ObjectDisposedException">A tensor has been disposed.</exception>
    /// <exception cref="NotSupportedException">The device, or the type or head size on CUDA, is not supported.
    /// </exception>
    /// <exception cref="DllNotFoundException">The native library is missing.</exception>
    /// <exception cref="LightningAttnException">The CUDA driver reported an error.</exception>
    public static Tensor lightning_attention_varlen(
        Tensor q,
        Tensor k,
        Tensor v,
        Tensor ed,
        Tensor cu_seqlens,
        Tensor? state_pool = null,
        Tensor? state_indices = null,
        Tensor? has_initial_state = null,
        double scale = 1.0)
    {
        Check.PackedProjections(q, k, v);
        Check.Offsets(cu_seqlens, v, q.size(0));
        Check.PackedPool(state_pool, state_indices, has_initial_state, q, v, cu_seqlens.size(0) - 1);
        Check.Scale(scale);

        using var scope = torch.NewDisposeScope();
        Tensor rates = DecayRates.Prepare(ed, nameof(ed), v.size(1), v);
        bool recording = torch.is_grad_enabled()
            && (q.requires_grad || k.requires_grad || v.requires_grad || rates.requires_grad
                || state_pool is { requires_grad: true });
        if (recording && state_pool is not null)
        {
            throw new InvalidOperationException(
                "An argument requires a gradient, but lightning_attention_varlen is not differentiable with a "
                + "state_pool, which it updates in place. Call it without a pool, or under no_grad.");
        }

        var options = new AttentionOptions(
            BlockSize: 64, scale, BlockStates: false, Kernels.AllowsTf32(v.dtype, v.device_type));
        Tensor offsets = Dense(cu_seqlens)!;
        if (recording)
        {
            return scope.MoveToOuter(Autograd.PackedAttention.Record(q, k, v, rates, offsets, options));
        }

        PackedStates? states = state_pool is null
            ? null
            : new PackedStates(state_pool, Dense(state_indices), Dense(has_initial_state));
        return scope.MoveToOuter(Kernels.ForwardPacked(q, k, v, rates, offsets, states, options));

        static Tensor? Dense(Tensor? tensor) => tensor is null || tensor.is_contiguous() ? tensor : tensor.contiguous();
    }
}
