using LightningAttn.Modules;
using LightningAttn.Tests.Reference;
using LightningAttn.Tests.Support;
using TorchSharp.Modules;
using Layer = LightningAttn.Modules.LightningAttention;

namespace LightningAttn.Tests.Modules;

/// <summary>A layer with random weights, and what it is compared with.</summary>
internal sealed class LayerCase
{
    internal const int Hidden = 40;
    internal const int Heads = 3;
    internal const int HeadDim = 16;
    internal const int LayerIndex = 2;
    internal const int Layers = 5;

    internal static readonly Dictionary<string, LightningAttentionOptions> Presets = new()
    {
        ["MiniMax"] = LightningAttentionOptions.MiniMax,
        ["Ling"] = LightningAttentionOptions.Ling with { NormGroups = Heads },
        ["TransNormer"] = LightningAttentionOptions.TransNormer,
        ["All else"] = new LightningAttentionOptions
        {
            Layout = QkvLayout.Stacked,
            QkNorm = true,
            RotaryFactor = 1,
            Bias = true,
            Scale = 0.3,
            GateActivation = Activation.SiLU,
            NormGroups = 2,
        },
    };

    internal LayerCase(string preset, Device device, ScalarType dtype = ScalarType.Float32)
    {
        (Options, Dtype) = (Presets[preset], dtype);
        Module = new Layer(Hidden, Heads, LayerIndex, Layers, HeadDim, Options, device: device, dtype: dtype);
        using (torch.no_grad())
        {
            int seed = 0;
            foreach ((string name, Parameter parameter) in Module.named_parameters())
            {
                bool isMatrix = parameter.dim() == 2;
                Tensor values = Values.Normal(++seed, ScalarType.Float64, torch.CPU, parameter.shape);
                parameter.copy_(isMatrix ? values / Math.Sqrt(parameter.size(1)) : 1 + (0.2 * values));
            }
        }
    }

    internal LightningAttentionOptions Options { get; }

    internal ScalarType Dtype { get; }

    internal Layer Module { get; }

    internal Tensor Input(long batch, long tokens, int seed = 100) =>
        Values.Normal(seed, Dtype, Module.parameters().First().device, batch, tokens, Hidden);

    /// <summary>The weights in float64 on the CPU; leaves that require gradients if wanted.</summary>
    internal Dictionary<string, Tensor> WideWeights(bool leaves = false) => Module.named_parameters().ToDictionary(
        static named => named.name,
        named => named.parameter.detach().cpu().to(ScalarType.Float64).requires_grad_(leaves));

    /// <summary>What the layer computes from x, [B, N, hidden] in float64, each sequence on its own.</summary>
    internal Tensor Expected(Tensor x, Dictionary<string, Tensor>? weights = null)
    {
        var reference = new LayerReference(
            Options, Heads, HeadDim, Module.decay_rates, weights ?? WideWeights());
        Tensor wide = x.device_type == DeviceType.CPU && x.dtype == ScalarType.Float64
            ? x
            : x.detach().cpu().to(ScalarType.Float64);
        return torch.stack([.. wide.unbind(0).Select(reference.Forward)]);
    }

    internal static void AssertClose(Tensor actual, Tensor expected, double limit, string what = "y")
    {
        double[] values = Values.Of(actual);
        double[] truth = Values.Of(expected);
        Assert.That(values, Has.Length.EqualTo(truth.Length));
        Assert.That(Accuracy.RelativeError(values, truth), Is.LessThan(limit), what);
    }
}
