using LightningAttn.Interop;
using TorchSharp;
using static TorchSharp.torch;

namespace LightningAttn;

public static partial class Functional
{
    /// <summary>
    /// The outputs of the Td draft tokens of speculative decoding, one after the other from the states in the pool, which
    /// stay as they are:
    /// <code>
    /// S_t = exp(-s) S_{t-1} + k_t (x) v_t        S_0 = state_pool[slot_idx[b]]
    /// o_t = S_t^T q_t                            t = 1 .. Td
    /// </code>
    /// in one pass over the states, accumulated in float32 (float64 for float64 inputs).
    /// <see cref="linear_decode_commit"/> then advances the states by the tokens that were accepted. No gradients.
    /// </summary>
    /// <remarks>
    /// With a float32 pool the outputs are bitwise those of Td calls of
    /// <see cref="linear_decode_forward(Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, long)"/> with one token each; with
    /// other pools they are at least as accurate, as the state is not rounded between tokens. They do not depend on the
    /// other rows of the batch. Slots are treated as by that function: -1 is padding, whose output is zeros, and any
    /// other slot outside the pool is an error on the CPU, and on CUDA padding unless LATTN_DEBUG_SLOTS=1 is set.
    /// Several rows may name the same slot.
    /// </remarks>
    /// <param name="q">Queries [B, Td, Hk, D], Td from 1 to 16: bfloat16, float16, float32, or float64 (CPU only). Read in
    /// place where the last axis has unit stride, whatever the others have.</param>
    /// <param name="k">Keys, as q.</param>
    /// <param name="v">Values [B, Td, Hv, E] of q's type and device.</param>
    /// <param name="state_pool">The states [slots, Hv, D, E], float32, bfloat16 or float16 (float64 exactly for float64
    /// inputs), of any strides. Not written.</param>
    /// <param name="slope_rate">Decay rates s >= 0 in nats per token, [Hv], [Hv, 1, 1] or [1, Hv, 1, 1], float32
    /// (float64 also allowed with float64 inputs).</param>
    /// <param name="slot_idx">[B], int32 or int64, on the device of q.</param>
    /// <returns>[B, Td, Hv * E] of v's type.</returns>
    /// <exception cref="ArgumentException">An argument has the wrong rank, size, type or device, a rate is negative,
    /// NaN or infinite (CPU), or a slot is out of range (CPU).</exception>
    /// <exception cref="InvalidOperationException">An argument requires a gradient while gradients are recorded.
    /// </exception>
    /// <exception cref="ObjectDisposedException">A tensor has been disposed.</exception>
    /// <exception cref="NotSupportedException">The device, or the type or head size on CUDA, is not supported.
    /// </exception>
    /// <exception cref="DllNotFoundException">The native library is missing.</exception>
    /// <exception cref="LightningAttnException">The CUDA driver reported an error.</exception>
    public static Tensor linear_decode_verify(
        Tensor q, Tensor k, Tensor v, Tensor state_pool, Tensor slope_rate, Tensor slot_idx)
    {
        Check.Usable(q, nameof(q));
        using var scope = torch.NewDisposeScope();
        Draft draft = PrepareDraft(nameof(linear_decode_verify), q, k, v, state_pool, slope_rate, slot_idx);
        Tensor output = Kernels.DecodeVerify(
            q.transpose(1, 2), draft.K, draft.V, draft.Rates, state_pool, slot_idx);
        return scope.MoveToOuter(output);
    }

    /// <summary>
    /// Advances the state of every row by its first <c>accepted[b]</c> of Td draft tokens, in place and in one pass:
    /// the second half of speculative decoding, after <see cref="linear_decode_verify"/>. No gradients.
    /// </summary>
    /// <remarks>
    /// With a float32 pool the states are bitwise those after <c>accepted[b]</c> calls of
    /// <see cref="linear_decode_forward(Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, long)"/>; others are rounded once,
    /// after the last token. Two rows with the same slot in one call are the caller's error: the result is undefined.
    /// A number of accepted tokens outside [0, Td] is an error on the CPU; on CUDA it is clamped, unless
    /// LATTN_DEBUG_SLOTS=1 is set, which makes it an error. Padding and other slots are as in linear_decode_verify. The
    /// in-place update is invisible to autograd's version counter.
    /// </remarks>
    /// <param name="k">Keys [B, Td, Hk, D] of the draft tokens, as they were verified.</param>
    /// <param name="v">Their values [B, Td, Hv, E].</param>
    /// <param name="state_pool">The states [slots, Hv, D, E], updated in place.</param>
    /// <param name="slope_rate">Decay rates, as in linear_decode_verify.</param>
    /// <param name="slot_idx">[B], int32 or int64, on the device of k.</param>
    /// <param name="accepted">[B], int32 or int64, on the device of k: how many tokens row b takes, 0 to Td.</param>
    /// <exception cref="ArgumentException">As above, or accepted has the wrong rank, size, type or device, or is out of
    /// range (CPU).</exception>
    /// <exception cref="InvalidOperationException">An argument requires a gradient while gradients are recorded.
    /// </exception>
    /// <exception cref="ObjectDisposedException">A tensor has been disposed.</exception>
    /// <exception cref="NotSupportedException">The device, or the type or head size on CUDA, is not supported.
    /// </exception>
    /// <exception cref="DllNotFoundException">The native library is missing.</exception>
    /// <exception cref="LightningAttnException">The CUDA driver reported an error.</exception>
    public static void linear_decode_commit(
        Tensor k, Tensor v, Tensor state_pool, Tensor slope_rate, Tensor slot_idx, Tensor accepted)
    {
        using var scope = torch.NewDisposeScope();
        Draft draft = PrepareDraft(nameof(linear_decode_commit), null, k, v, state_pool, slope_rate, slot_idx);
        Check.Writable(state_pool, nameof(state_pool));
        Check.Accepted(accepted, v, k.size(1));
        Kernels.DecodeCommit(draft.K, draft.V, draft.Rates, state_pool, slot_idx, accepted);
    }

    /// <summary>Checks what both functions take. To be called inside a dispose scope.</summary>
    private static Draft PrepareDraft(
        string function, Tensor? q, Tensor k, Tensor v, Tensor pool, Tensor slopeRate, Tensor slots)
    {
        Check.Draft(q, k, v);
        Check.Usable(pool, "state_pool");
        Check.Usable(slopeRate, "slope_rate");
        if (torch.is_grad_enabled())
        {
            if (q is not null)
            {
                Check.NotRecorded(function, q, nameof(q));
            }

            Check.NotRecorded(function, k, nameof(k));
            Check.NotRecorded(function, v, nameof(v));
            Check.NotRecorded(function, pool, "state_pool");
            Check.NotRecorded(function, slopeRate, "slope_rate");
        }

        // As the kernels have them, [B, H, Td, X].
        Tensor keys = k.transpose(1, 2);
        Tensor values = v.transpose(1, 2);
        Check.DecodeState(pool, "state_pool", "slots", rows: null, keys, values);
        Tensor rates = DecayRates.Prepare(slopeRate, "slope_rate", values.size(1), values);
        Check.Slots(slots, values, pool.size(0), "state_pool");
        return new Draft(keys, values, rates);
    }

    /// <summary>Draft tokens [B, Hk, Td, D] and [B, Hv, Td, E], and their decay rates [Hv].</summary>
    private readonly record struct Draft(Tensor K, Tensor V, Tensor Rates);
}
