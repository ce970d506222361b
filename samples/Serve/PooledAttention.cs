using CharLm.Model;
using LightningAttn;
using static TorchSharp.torch;

namespace Serve;

/// <summary>One token for each row, [B, 1, ..]; the states are in the rows' slots and are updated there.</summary>
/// <param name="pool">States of all streams.</param>
/// <param name="slots">[B], -1 for rows that nobody reads.</param>
internal sealed class PooledDecode(StatePool pool, Tensor slots) : IAttentionState
{
    public Tensor Attend(int layer, Tensor q, Tensor k, Tensor v, Tensor decayRates)
    {
        using var tokens = Functional.linear_decode_forward(q, k, v, pool[layer], decayRates, slots);
        return tokens.unsqueeze(1);
    }
}

/// <summary>
/// Chunks of prompts one after the other, packed as [1, T, ..]; each goes on from the state in its slot, or begins
/// there, and leaves its end there.
/// </summary>
/// <param name="pool">States of all streams.</param>
/// <param name="offsets">[n + 1]: chunk i has the tokens offsets[i] to offsets[i + 1] - 1; what lies behind the last
/// one is read by nobody.</param>
/// <param name="slots">[n].</param>
/// <param name="continues">[n], false for the first chunk of a prompt.</param>
internal sealed class PackedPrefill(StatePool pool, Tensor offsets, Tensor slots, Tensor continues) : IAttentionState
{
    public Tensor Attend(int layer, Tensor q, Tensor k, Tensor v, Tensor decayRates)
    {
        using var scope = NewDisposeScope();
        return Functional
            .lightning_attention_varlen(
                Packed(q), Packed(k), Packed(v), decayRates, offsets, pool[layer], slots, continues)
            .flatten(1)
            .unsqueeze(0)
            .MoveToOuterDisposeScope();
    }

    /// <summary>[1, H, T, X] to [T, H, X], a view.</summary>
    private static Tensor Packed(Tensor x) => x.squeeze(0).transpose(0, 1);
}
