using TorchSharp;
using static TorchSharp.torch;

namespace LightningAttn.Modules;

/// <summary>
/// Where a <see cref="LightningAttention"/> finds what came before the tokens of a call, and leaves what the next call
/// goes on from:
/// <list type="bullet">
/// <item><see cref="LightningAttentionState"/>: a batch of its own, [B, N] tokens at a time, with gradients;</item>
/// <item><see cref="PackedSequences"/>: sequences of different lengths one after the other, from slots of a pool or
/// from nothing;</item>
/// <item><see cref="PooledSequences"/>: one token of each sequence, from slots of a pool.</item>
/// </list>
/// </summary>
public abstract class AttentionState
{
    private protected AttentionState()
    {
    }

    /// <summary>Fails where x [B, N, hidden] or the mask [B, N] is not what this state can take.</summary>
    internal abstract void Check(Tensor x, Tensor? mask, LightningAttention layer);

    /// <summary>Positions [B or 1, N] of the tokens of x [B, N, hidden] in their sequences.</summary>
    /// <param name="x">The tokens.</param>
    /// <param name="mask">[B, N], false for padding, which has no position of its own; null: none.</param>
    internal abstract Tensor Positions(Tensor x, Tensor? mask);

    /// <summary>Attention [B, H, N, E] of q, k, v [B, H, N, D].</summary>
    internal abstract Tensor Attend(Tensor q, Tensor k, Tensor v, Tensor rates, double scale);

    /// <summary>Counts the tokens that <see cref="Attend"/> has had.</summary>
    /// <param name="count">N.</param>
    /// <param name="positions">Their positions where these are kept, for sequences that differ in them.</param>
    internal virtual void Advance(long count, Tensor? positions)
    {
    }

    /// <summary>Outputs [B, H E] of one token each as [B, H, 1, E].</summary>
    private protected static Tensor OfTokens(Tensor outputs, long heads, double scale)
    {
        Tensor scaled = scale == 1 ? outputs : outputs * scale;
        return scaled.unflatten(1, [heads, -1]).unsqueeze(2);
    }
}
