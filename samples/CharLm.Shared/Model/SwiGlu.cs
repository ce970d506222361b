using TorchSharp;
using TorchSharp.Modules;
using TorchSharp.Utils;
using static TorchSharp.torch;

namespace CharLm.Model;

/// <summary>down_proj(silu(gate) * up) with [gate | up] = gate_up_proj(x).</summary>
internal sealed class SwiGlu : nn.Module<Tensor, Tensor>
{
    [ComponentName(Name = "gate_up_proj")]
    private readonly Linear _gateUpProj;

    [ComponentName(Name = "down_proj")]
    private readonly Linear _downProj;

    public SwiGlu(ModelConfig config)
        : base(nameof(SwiGlu))
    {
        _gateUpProj = nn.Linear(config.Dim, 2 * config.MlpDim, hasBias: false);
        _downProj = nn.Linear(config.MlpDim, config.Dim, hasBias: false);
        RegisterComponents();
    }

    public override Tensor forward(Tensor x)
    {
        using var scope = NewDisposeScope();
        var gateUp = _gateUpProj.call(x).chunk(2, dim: -1);
        return _downProj.call(nn.functional.silu(gateUp[0]) * gateUp[1]).MoveToOuterDisposeScope();
    }
}
