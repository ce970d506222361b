using TorchSharp;
using TorchSharp.Modules;
using TorchSharp.Utils;
using static TorchSharp.torch;

namespace MiniMax.Model;

/// <summary>The experts of a layer, packed: down(silu(gate) * up) with [gate | up] = gate_up(x).</summary>
internal sealed class Experts : nn.Module<Tensor, Tensor, Tensor, Tensor>
{
    [ComponentName(Name = "gate_up_proj")]
    private readonly Parameter _gateUp; // [experts, 2 * inner, hidden]

    [ComponentName(Name = "down_proj")]
    private readonly Parameter _down;   // [experts, hidden, inner]

    public Experts(MiniMaxConfig config)
        : base(nameof(Experts))
    {
        _gateUp = new Parameter(zeros(config.Experts, 2 * config.IntermediateSize, config.HiddenSize));
        _down = new Parameter(zeros(config.Experts, config.HiddenSize, config.IntermediateSize));
        _gateUp.DetachFromDisposeScope();
        _down.DetachFromDisposeScope();
        RegisterComponents();
    }

    /// <summary>The sum over the experts that compute a row; each computes its rows at once.</summary>
    /// <param name="rows">[T, hidden].</param>
    /// <param name="weights">[T, k].</param>
    /// <param name="chosen">[T, k], no expert twice in a row.</param>
    public override Tensor forward(Tensor rows, Tensor weights, Tensor chosen)
    {
        using var scope = NewDisposeScope();
        var sum = zeros_like(rows);
        var choices = chosen.flatten();
        var flatWeights = weights.reshape(-1, 1);
        for (var expert = 0L; expert < _gateUp.size(0); expert++)
        {
            using var step = NewDisposeScope();
            var mine = choices.eq(expert).nonzero().squeeze(1);
            if (mine.numel() == 0)
            {
                continue;
            }

            var tokens = mine.div(chosen.size(1), RoundingMode.floor);
            var gateUp = nn.functional.linear(rows.index_select(0, tokens), _gateUp[expert]).chunk(2, dim: -1);
            var inner = nn.functional.silu(gateUp[0]) * gateUp[1];
            var output = nn.functional.linear(inner, _down[expert]) * flatWeights.index_select(0, mine);
            sum.index_add_(0, tokens, output, 1);
        }

        return sum.MoveToOuterDisposeScope();
    }
}
