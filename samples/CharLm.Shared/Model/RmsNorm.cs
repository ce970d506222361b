using TorchSharp;
using TorchSharp.Modules;
using TorchSharp.Utils;
using static TorchSharp.torch;

namespace CharLm.Model;

/// <summary>x / sqrt(mean(x^2) + eps) * weight over the last axis.</summary>
internal sealed class RmsNorm : nn.Module<Tensor, Tensor>
{
    public const double DefaultEps = 1e-5;

    private readonly double _eps;

    [ComponentName(Name = "weight")]
    private readonly Parameter _weight;

    public RmsNorm(long dim, double eps = DefaultEps)
        : base(nameof(RmsNorm))
    {
        _eps = eps;
        _weight = new Parameter(ones(dim));
        _weight.DetachFromDisposeScope();
        RegisterComponents();
    }

    public override Tensor forward(Tensor x)
    {
        using var scope = NewDisposeScope();
        var scale = x.square().mean([-1], keepdim: true).add_(_eps).rsqrt_();
        return (x * scale * _weight).MoveToOuterDisposeScope();
    }
}
