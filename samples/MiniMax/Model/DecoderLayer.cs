using LightningAttn.Modules;
using TorchSharp;
using TorchSharp.Utils;
using static TorchSharp.torch;
using RmsNorm = CharLm.Model.RmsNorm;

namespace MiniMax.Model;

/// <summary>
/// Attention, then experts. The residual is what a norm returned, not what it read:
/// r = norm(h), h = alpha * r + beta * f(r).
/// </summary>
internal sealed class DecoderLayer : nn.Module<Tensor, Pass, Tensor>
{
    private readonly int _layer;
    private readonly ResidualFactors _attentionFactors;
    private readonly ResidualFactors _mlpFactors;

    [ComponentName(Name = "input_layernorm")]
    private readonly RmsNorm _attentionNorm;

    [ComponentName(Name = "self_attn")]
    private readonly nn.Module _attention; // LightningAttention or SoftmaxAttention

    [ComponentName(Name = "post_attention_layernorm")]
    private readonly RmsNorm _mlpNorm;

    [ComponentName(Name = "mlp")]
    private readonly SparseMoe _mlp;

    public DecoderLayer(MiniMaxConfig config, int layer)
        : base(nameof(DecoderLayer))
    {
        _layer = layer;
        _attentionFactors = config.IsLinear[layer] ? config.LinearAttention : config.FullAttention;
        _mlpFactors = config.Mlp;
        _attentionNorm = new RmsNorm(config.HiddenSize, config.NormEps);
        _attention = config.IsLinear[layer] ? CreateLinear(config, layer) : new SoftmaxAttention(config);
        _mlpNorm = new RmsNorm(config.HiddenSize, config.NormEps);
        _mlp = new SparseMoe(config);
        RegisterComponents();
    }

    /// <summary>What the attention remembers, empty.</summary>
    public IDisposable NewState(long batchSize) =>
        _attention is LightningAttention linear ? linear.new_state(batchSize) : new KeyValueCache();

    public override Tensor forward(Tensor h, Pass pass)
    {
        using var scope = NewDisposeScope();
        var r = _attentionNorm.call(h);
        var attended = Attend(r, pass);
        pass.ShowAttention(_layer, attended);
        r = _mlpNorm.call(Add(r, attended, _attentionFactors));
        return Add(r, _mlp.call(r), _mlpFactors).MoveToOuterDisposeScope();
    }

    private static LightningAttention CreateLinear(MiniMaxConfig config, int layer) =>
        new(
            config.HiddenSize,
            config.Heads,
            layer,
            config.Layers,
            config.HeadDim,
            decay_rates: DecaySlopes.Of(config, layer));

    private static Tensor Add(Tensor residual, Tensor added, ResidualFactors factors) =>
        (residual * factors.Alpha) + (added * factors.Beta);

    private Tensor Attend(Tensor x, Pass pass) =>
        _attention switch
        {
            LightningAttention linear => linear.call(x, pass.State?.State(_layer), pass.Real),
            SoftmaxAttention softmax => softmax.call(x, pass, pass.State?.Cache(_layer)),
            _ => throw new InvalidOperationException($"layer {_layer} has no attention"),
        };
}
