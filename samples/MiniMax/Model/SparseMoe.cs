using TorchSharp;
using TorchSharp.Utils;
using static TorchSharp.torch;

namespace MiniMax.Model;

/// <summary>Each token is computed by the experts that a router finds likeliest, and their results weighed.</summary>
internal sealed class SparseMoe : nn.Module<Tensor, Tensor>
{
    [ComponentName(Name = "gate")]
    private readonly Router _router;

    [ComponentName(Name = "experts")]
    private readonly Experts _experts;

    public SparseMoe(MiniMaxConfig config)
        : base(nameof(SparseMoe))
    {
        _router = new Router(config);
        _experts = new Experts(config);
        RegisterComponents();
    }

    public override Tensor forward(Tensor x)
    {
        using var scope = NewDisposeScope();
        var rows = x.flatten(0, -2);
        var (weights, chosen) = _router.call(rows);
        return _experts.call(rows, weights, chosen).view_as(x).MoveToOuterDisposeScope();
    }
}
