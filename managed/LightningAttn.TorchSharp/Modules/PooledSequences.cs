using TorchSharp;
using static TorchSharp.torch;

namespace LightningAttn.Modules;

/// <summary>
/// One token of each of B sequences, x [B, 1, hidden], whose states are in slots of a pool and updated there, by
/// <see cref="Functional.linear_decode_forward(Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, long)"/>: a server's
/// decoding step.
/// </summary>
/// <remarks>Of one layer and one call; it borrows the tensors.</remarks>
/// <param name="state_pool">States of this layer, [slots, H, D, E], as <see cref="StatePool"/> has them for each layer.
/// </param>
/// <param name="state_indices">[B], int32 or int64, on the device of x: the slot of each row, -1 for rows without a
/// sequence, of which attention gives zeros.</param>
/// <param name="positions">[B], int64: each token's position in its sequence, for layers with rotary embedding; others
/// do not look at it.</param>
public sealed class PooledSequences(Tensor state_pool, Tensor state_indices, Tensor? positions = null) : AttentionState
{
    internal override void Check(Tensor x, Tensor? mask, LightningAttention layer)
    {
        if (x.size(1) != 1)
        {
            throw LightningAttn.Check.Unexpected(
                x, "x", $"[B, 1, {layer.hidden_size}], one token of each pooled sequence");
        }

        ModuleCheck.NoPaddingMask(mask, "rows of pooled sequences that are padding have slot -1");
        ModuleCheck.Positions(positions, "[B]", x.size(0), x, layer);
    }

    internal override Tensor Positions(Tensor x, Tensor? mask) => positions!.unsqueeze(1);

    internal override Tensor Attend(Tensor q, Tensor k, Tensor v, Tensor rates, double scale)
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor tokens = Functional.linear_decode_forward(q, k, v, state_pool, rates, state_indices);
        return OfTokens(tokens, v.size(1), scale).MoveToOuterDisposeScope();
    }
}
