using LightningAttn.Interop;
using TorchSharp;
using static TorchSharp.torch;

namespace LightningAttn;

public static partial class Functional
{
    /// <summary>
    /// One token per sequence, with the states in a pool that is updated in place:
    /// <code>
    /// S = exp(-s) S + k (x) v
    /// o = S^T q                    S = kv_caches[slot_idx[b]]
    /// </code>
    /// accumulated in float32 (float64 for float64 inputs) and rounded once into the cache's type. Differentiable once
    /// with respect to q, k, v and slope_rate; the cache is a buffer. Second derivatives are refused as by
    /// <see cref="lightning_attention"/>.
    /// </summary>
    /// <remarks>
    /// A row whose slot is -1 is padding: its output is zeros, it touches no slot and gets no gradient. Two rows with
    /// the same slot in one call are the caller's error: the result is undefined. Any other slot outside the pool is an
    /// error on the CPU; on CUDA, where seeing it would synchronise, such a row is treated as padding, unless
    /// LATTN_DEBUG_SLOTS=1 is set in the environment (or the AppContext switch LightningAttn.DebugSlots is on), which
    /// makes it an error. The in-place update is invisible to autograd's version counter.
    /// </remarks>
    /// <param name="q">Queries [B, Hk, 1, D]: bfloat16, float16, float32, or float64 (CPU only).</param>
    /// <param name="k">Keys, as q.</param>
    /// <param name="v">Values [B, Hv, 1, E] of q's type and device.</param>
    /// <param name="kv_caches">The pool of states [slots, Hv, D, E], float32, bfloat16 or float16 (float64 exactly for
    /// float64 inputs), of any strides, such as a slice of a larger pool.</param>
    /// <param name="slope_rate">Decay rates s >= 0 in nats per token, [Hv], [Hv, 1, 1] or [1, Hv, 1, 1], float32
    /// (float64 also allowed with float64 inputs).</param>
    /// <param name="slot_idx">[B], int32 or int64, on the device of q.</param>
    /// <param name="block_size">Any positive number. Accepted for compatibility with the Triton operator, whose tile it
    /// sets; without effect.</param>
    /// <returns>[B, Hv * E] of v's type.</returns>
    /// <exception cref="ArgumentException">An argument has the wrong rank, size, type or device, a rate is negative,
    /// NaN or infinite (CPU), or a slot is out of range (CPU).</exception>
    /// <exception cref="InvalidOperationException">kv_caches requires a gradient while gradients are recorded; use
    /// <see cref="linear_decode_step"/>, which returns the new state.</exception>
    /// <exception cref="ObjectDisposedException">A tensor has been disposed.</exception>
    /// <exception cref="NotSupportedException">The device, or the type or head size on CUDA, is not supported.
    /// </exception>
    /// <exception cref="DllNotFoundException">The native library is missing.</exception>
    /// <exception cref="LightningAttnException">The CUDA driver reported an error.</exception>
    public static Tensor linear_decode_forward(
        Tensor q,
        Tensor k,
        Tensor v,
        Tensor kv_caches,
        Tensor slope_rate,
        Tensor slot_idx,
        long block_size = 32)
    {
        CheckDecodeForward(q, k, v, kv_caches, block_size);
        bool recording = torch.is_grad_enabled();

        using var scope = torch.NewDisposeScope();
        Tensor rates = DecayRates.Prepare(slope_rate, nameof(slope_rate), v.size(1), v);
        Check.Slots(slot_idx, v, kv_caches.size(0));
        Tensor output = recording && (q.requires_grad || k.requires_grad || v.requires_grad || rates.requires_grad)
            ? Autograd.LinearDecode.RecordInPlace(q, k, v, rates, kv_caches, slot_idx)
            : Kernels.Decode(q, k, v, rates, kv_caches, kv_caches, slot_idx);
        return scope.MoveToOuter(output);
    }

    /// <summary>
    /// The same into a given tensor, so that a loop of steps allocates nothing: no tensor, and no managed object unless
    /// an argument has to be converted (slope_rate of another type, rank or stride; a last axis of q, k or v with a
    /// stride). Never recorded by autograd.
    /// </summary>
    /// <param name="q">As above.</param>
    /// <param name="k">As above.</param>
    /// <param name="v">As above.</param>
    /// <param name="kv_caches">As above.</param>
    /// <param name="slope_rate">As above.</param>
    /// <param name="slot_idx">As above.</param>
    /// <param name="output">[B, Hv * E] of v's type and device, the elements of a row side by side; overwritten. It must
    /// not overlap q, k, v or kv_caches.</param>
    /// <param name="block_size">As above.</param>
    /// <returns><paramref name="output"/>.</returns>
    /// <exception cref="ArgumentException">As above, or output has the wrong rank, size, type, device or stride.
    /// </exception>
    /// <exception cref="InvalidOperationException">An argument requires a gradient while gradients are recorded.
    /// </exception>
    /// <exception cref="ObjectDisposedException">A tensor has been disposed.</exception>
    /// <exception cref="NotSupportedException">The device, or the type or head size on CUDA, is not supported.
    /// </exception>
    /// <exception cref="DllNotFoundException">The native library is missing.</exception>
    /// <exception cref="LightningAttnException">The CUDA driver reported an error.</exception>
    public static Tensor linear_decode_forward(
        Tensor q,
        Tensor k,
        Tensor v,
        Tensor kv_caches,
        Tensor slope_rate,
        Tensor slot_idx,
        Tensor output,
        long block_size = 32)
    {
        CheckDecodeForward(q, k, v, kv_caches, block_size);
        Check.DecodeOutput(output, v);
        Check.Usable(slope_rate, nameof(slope_rate));
        if (torch.is_grad_enabled()
            && (q.requires_grad || k.requires_grad || v.requires_grad || slope_rate.requires_grad
                || output.requires_grad))
        {
            throw new InvalidOperationException(
                "An argument requires a gradient, but what is written to a given output is not recorded. Call "
                + "linear_decode_forward without output, or under no_grad.");
        }

        Tensor rates = DecayRates.Prepare(slope_rate, nameof(slope_rate), v.size(1), v);
        try
        {
            Check.Slots(slot_idx, v, kv_caches.size(0));
            Kernels.Decode(q, k, v, rates, kv_caches, kv_caches, slot_idx, output);
        }
        finally
        {
            if (!ReferenceEquals(rates, slope_rate))
            {
                rates.Dispose();
            }
        }

        return output;
    }

    /// <summary>
    /// One token per sequence, out of place: <c>new_state = exp(-s) state + k (x) v</c>, <c>output = new_state^T q</c>.
    /// Differentiable once with respect to q, k, v, state and slope_rate, from the output and from the new state, so
    /// that training through decoding works. Second derivatives are refused as by <see cref="lightning_attention"/>.
    /// </summary>
    /// <param name="q">Queries [B, Hk, 1, D]: bfloat16, float16, float32, or float64 (CPU only).</param>
    /// <param name="k">Keys, as q.</param>
    /// <param name="v">Values [B, Hv, 1, E] of q's type and device.</param>
    /// <param name="state">States [B, Hv, D, E], float32, bfloat16 or float16 (float64 exactly for float64 inputs), any
    /// strides. Never written.</param>
    /// <param name="slope_rate">Decay rates s >= 0 in nats per token, [Hv], [Hv, 1, 1] or [1, Hv, 1, 1], float32
    /// (float64 also allowed with float64 inputs).</param>
    /// <returns>output: [B, Hv * E] of v's type. new_state: [B, Hv, D, E] of state's type, rounded once.</returns>
    /// <exception cref="ArgumentException">An argument has the wrong rank, size, type or device, or a rate is negative,
    /// NaN or infinite (CPU).</exception>
    /// <exception cref="ObjectDisposedException">A tensor has been disposed.</exception>
    /// <exception cref="NotSupportedException">The device, or the type or head size on CUDA, is not supported.
    /// </exception>
    /// <exception cref="DllNotFoundException">The native library is missing.</exception>
    /// <exception cref="LightningAttnException">The CUDA driver reported an error.</exception>
    public static (Tensor output, Tensor new_state) linear_decode_step(
        Tensor q, Tensor k, Tensor v, Tensor state, Tensor slope_rate)
    {
        Check.Decode(q, k, v);
        Check.DecodeState(state, nameof(state), "B", v.size(0), q, v);

        using var scope = torch.NewDisposeScope();
        Tensor rates = DecayRates.Prepare(slope_rate, nameof(slope_rate), v.size(1), v);
        if (torch.is_grad_enabled()
            && (q.requires_grad || k.requires_grad || v.requires_grad || state.requires_grad || rates.requires_grad))
        {
            (Tensor recorded, Tensor recordedState) = Autograd.LinearDecode.Record(q, k, v, rates, state);
            return scope.MoveToOuter(recorded, recordedState);
        }

        Tensor newState = Kernels.NewState(state);
        Tensor output = Kernels.Decode(q, k, v, rates, state, newState, slots: null);
        return scope.MoveToOuter(output, newState);
    }

    private static void CheckDecodeForward(Tensor q, Tensor k, Tensor v, Tensor kvCaches, long blockSize)
    {
        Check.Decode(q, k, v);
        Check.DecodeState(kvCaches, "kv_caches", "slots", rows: null, q, v);
        Check.Writable(kvCaches, "kv_caches");
        if (blockSize <= 0)
        {
            throw new ArgumentException($"block_size is {blockSize}, expected a positive number.", "block_size");
        }

        if (kvCaches.requires_grad && torch.is_grad_enabled())
        {
            throw new InvalidOperationException(
                "kv_caches requires a gradient, but linear_decode_forward updates it in place and gives it none. Use "
                + "linear_decode_step(q, k, v, state, slope_rate), which returns the new state, or detach the cache.");
        }
    }
}
