using TorchSharp;
using static TorchSharp.torch;

namespace LightningAttn.Modules;

/// <summary>
/// Sequences of different lengths one after the other in x [1, T, hidden], by
/// <see cref="Functional.lightning_attention_varlen"/>: packed training without a pool, prefill with one, where each
/// sequence goes on from its slot, or begins there, and leaves its end there.
/// </summary>
/// <remarks>
/// Of one layer and one call; it borrows the tensors. Tokens that belong to no sequence are padding: attention gives
/// zeros for them.
/// </remarks>
/// <param name="cu_seqlens">[n + 1], int32 or int64, on the device of x: where each sequence begins, and where the last
/// one ends.</param>
/// <param name="state_pool">States of this layer, [slots, H, D, E], updated in place, as <see cref="StatePool"/> has
/// them for each layer. Null: sequences start from zeros, their ends are not kept, and gradients flow.</param>
/// <param name="state_indices">[n], int32 or int64: the slot of each sequence, -1 for padding. Null: slot b of sequence
/// b.</param>
/// <param name="has_initial_state">[n], bool: false where a sequence starts from zeros. Null: none does.</param>
/// <param name="positions">[T], int64: each token's position in its sequence, for layers with rotary embedding; others
/// do not look at it.</param>
public sealed class PackedSequences(
    Tensor cu_seqlens,
    Tensor? state_pool = null,
    Tensor? state_indices = null,
    Tensor? has_initial_state = null,
    Tensor? positions = null)
    : AttentionState
{
    internal override void Check(Tensor x, Tensor? mask, LightningAttention layer)
    {
        if (x.size(0) != 1)
        {
            throw LightningAttn.Check.Unexpected(x, "x", $"[1, T, {layer.hidden_size}], for packed sequences");
        }

        ModuleCheck.NoPaddingMask(mask, "tokens of packed sequences that are padding belong to none of them");
        ModuleCheck.Positions(positions, "[T]", x.size(1), x, layer);
    }

    internal override Tensor Positions(Tensor x, Tensor? mask) => positions!.unsqueeze(0);

    internal override Tensor Attend(Tensor q, Tensor k, Tensor v, Tensor rates, double scale)
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor output = Functional.lightning_attention_varlen(
            Packed(q), Packed(k), Packed(v), rates, cu_seqlens, state_pool, state_indices, has_initial_state, scale);
        return output.transpose(0, 1).unsqueeze(0).MoveToOuterDisposeScope();
    }

    /// <summary>[1, H, T, X] to [T, H, X], a view.</summary>
    private static Tensor Packed(Tensor x) => x.squeeze(0).transpose(0, 1);
}
