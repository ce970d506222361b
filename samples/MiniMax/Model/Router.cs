using TorchSharp;
using TorchSharp.Modules;
using TorchSharp.Utils;
using static TorchSharp.torch;

namespace MiniMax.Model;

/// <summary>
/// Rows [T, hidden] to the weights [T, k] of the k likeliest experts, which sum to 1, and these experts [T, k].
/// </summary>
internal sealed class Router : nn.Module<Tensor, (Tensor Weights, Tensor Chosen)>
{
    private readonly int _expertsPerToken;

    [ComponentName(Name = "weight")]
    private readonly Parameter _weight;

    public Router(MiniMaxConfig config)
        : base(nameof(Router))
    {
        _expertsPerToken = (int)config.ExpertsPerToken;
        _weight = new Parameter(zeros(config.Experts, config.HiddenSize));
        _weight.DetachFromDisposeScope();
        RegisterComponents();
    }

    public override (Tensor Weights, Tensor Chosen) forward(Tensor rows)
    {
        using var scope = NewDisposeScope();
        var chances = nn.functional.linear(rows, _weight).softmax(-1, ScalarType.Float32);
        var (values, chosen) = chances.topk(_expertsPerToken, dim: -1);
        return scope.MoveToOuter((values / values.sum(-1, keepdim: true)).to(rows.dtype), chosen);
    }
}
