namespace LightningAttn;

/// <summary>How <see cref="Functional.lightning_attention"/> weighs the state that enters a block.</summary>
public enum HistoryDecay
{
    /// <summary>
    /// The recurrence itself: <c>S_t = exp(-s) S_(t-1) + k_t (x) v_t</c>, <c>o_t = scale * S_t^T q_t</c>. Token i of a
    /// block sees the entering state decayed by <c>exp(-s (i + 1))</c>. Prefill, decode and training agree.
    /// </summary>
    Exact,

    /// <summary>
    /// The output of the widely deployed Triton prefill kernels of this operator: within blocks of 256 tokens counted
    /// from the start of the call, token i = 0..255 of block b sees the entering state S_b decayed by
    /// <c>exp(-s i)</c>:
    /// <code>o_i = exact o_i + scale * exp(-s i) * (1 - exp(-s)) * S_b^T q_i</code>
    /// The returned states are the exact ones. Gradients are those of this formula. Use it only to match the outputs of
    /// such a server: prefill then disagrees with decode (by 60 % on the first token after a block boundary at
    /// s = 0.9).
    /// </summary>
    VllmCompatible,
}
