using LightningAttn.Interop;
using TorchSharp;
using TorchSharp.Modules;
using TorchSharp.Utils;
using static TorchSharp.torch;

namespace LightningAttn.Modules;

/// <summary>
/// x / sqrt(mean(x^2) + eps) * weight, the mean over each of the groups that the last axis is cut into; in fp32 (fp64
/// for fp64), rounded once into x's type. TorchSharp 0.107 has none.
/// </summary>
internal sealed class RootMeanSquareNorm : nn.Module<Tensor, Tensor>
{
    private readonly long _groups;
    private readonly double _eps;

    [ComponentName(Name = "weight")]
    private readonly Parameter _weight;

    internal RootMeanSquareNorm(long channels, long groups, double eps, Device? device, ScalarType? dtype)
        : base(nameof(RootMeanSquareNorm))
    {
        (_groups, _eps) = (groups, eps);
        _weight = new Parameter(ones(channels, dtype, device));
        RegisterComponents();
    }

    public override Tensor forward(Tensor x)
    {
        using DisposeScope scope = NewDisposeScope();
        ScalarType wide = Kernels.StateType(x.dtype);
        Tensor values = x.to(wide);
        Tensor grouped = _groups == 1 ? values : values.unflatten(x.dim() - 1, [_groups, -1]);
        Tensor inverse = grouped.square().mean([-1], keepdim: true).add_(_eps).rsqrt_();
        Tensor scaled = grouped * inverse;
        scaled = _groups == 1 ? scaled : scaled.flatten(-2);
        return (scaled * _weight.to(wide)).to(x.dtype).MoveToOuterDisposeScope();
    }
}
