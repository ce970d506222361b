using TorchSharp;
using static TorchSharp.torch;

namespace LightningAttn.Modules;

/// <summary>No state: x [B, N, hidden] has all tokens of its sequences, and nothing is kept of them.</summary>
internal sealed class WholeSequences : AttentionState
{
    internal static WholeSequences Instance { get; } = new();

    internal override void Check(Tensor x, Tensor? mask, LightningAttention layer) =>
        ModuleCheck.PaddingMask(mask, x, hasState: false);

    internal override Tensor Positions(Tensor x, Tensor? mask)
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor positions = mask is null
            ? arange(x.size(1), ScalarType.Int64, x.device).unsqueeze(0)
            : mask.ne(0).to(ScalarType.Int64).cumsum(1) - 1;
        return positions.MoveToOuterDisposeScope();
    }

    internal override Tensor Attend(Tensor q, Tensor k, Tensor v, Tensor rates, double scale)
    {
        (Tensor output, Tensor states) = Functional.lightning_attention(
            q, k, v, rates, scale: scale, output_block_states: false);
        states.Dispose();
        return output;
    }
}
