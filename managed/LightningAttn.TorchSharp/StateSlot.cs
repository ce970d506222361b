namespace LightningAttn;

/// <summary>
/// A slot that a <see cref="StatePool"/> has handed out. A slot that is freed and handed out again has another
/// generation, so that an old handle is recognised.
/// </summary>
/// <param name="Index">Its place in the pool's tensors: what slot_idx of <c>linear_decode_forward</c> holds.</param>
/// <param name="Generation">Never 0, and never the same twice in a pool. It starts at random, so that a handle of
/// another pool is recognised too.</param>
public readonly record struct StateSlot(int Index, long Generation)
{
    /// <inheritdoc/>
    public override string ToString() => $"slot {Index} (generation {Generation})";
}
