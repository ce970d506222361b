namespace LightningAttn;

/// <summary>
/// A slot of a <see cref="StatePool"/> that has been handed out. A slot that is freed and handed out again has another
/// generation, so that an old handle is recognised.
/// </summary>
/// <param name="Index">Its place in the pool's tensors: what slot_idx of <c>linear_decode_forward</c> holds.</param>
/// <param name="Generation">How many times the slot has been handed out, this one included.</param>
public readonly record struct StateSlot(int Index, int Generation)
{
    /// <inheritdoc/>
    public override string ToString() => $"slot {Index}, generation {Generation}";
}
