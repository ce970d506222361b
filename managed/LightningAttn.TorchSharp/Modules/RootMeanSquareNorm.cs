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

    /// <summary>Whether <see cref="Gated"/> takes them: one type and one device for all.</summary>
    internal bool CanGate(Tensor x, Tensor gate) => Agrees(x, gate) && Agrees(x, _weight);

    /// <summary>activation(gate) times the norm of x, by one kernel, rounded once.</summary>
    /// <param name="x">[B, H, N, E] of any strides, H E channels.</param>
    /// <param name="gate">[B, N, H E].</param>
    /// <param name="activation">Of the gate.</param>
    /// <returns>[B, N, H E].</returns>
    internal Tensor Gated(Tensor x, Tensor gate, Activation activation)
    {
        using DisposeScope scope = NewDisposeScope();
        var options = new GatedNormOptions(_groups, _eps, activation);
        bool recording = is_grad_enabled() && (x.requires_grad || gate.requires_grad || _weight.requires_grad);
        Tensor output = recording
            ? Autograd.GatedNorm.Record(x, gate, _weight, options)
            : Kernels.GatedNormForward(x, gate, _weight, options);
        return output.MoveToOuterDisposeScope();
    }

    private static bool Agrees(Tensor x, Tensor other) =>
        other.dtype == x.dtype && other.device_type == x.device_type && other.device_index == x.device_index;
}
