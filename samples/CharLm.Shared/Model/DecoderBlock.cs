using LightningAttn.Modules;
using TorchSharp;
using TorchSharp.Utils;
using static TorchSharp.torch;

namespace CharLm.Model;

/// <summary>Pre-norm residual block: attention, then SwiGLU.</summary>
internal sealed class DecoderBlock : nn.Module<Tensor, AttentionState?, Tensor>
{
    [ComponentName(Name = "input_layernorm")]
    private readonly RmsNorm _attentionNorm;

    [ComponentName(Name = "self_attn")]
    private readonly LightningAttention _attention;

    [ComponentName(Name = "post_attention_layernorm")]
    private readonly RmsNorm _mlpNorm;

    [ComponentName(Name = "mlp")]
    private readonly SwiGlu _mlp;

    /// <param name="config">The model's sizes.</param>
    /// <param name="layer">Index of this block, which sets its decay rates.</param>
    /// <param name="attentionType">Type that q, k and v are rounded to for the operator; its state is fp32 for every
    /// one.</param>
    public DecoderBlock(ModelConfig config, int layer, ScalarType attentionType)
        : base(nameof(DecoderBlock))
    {
        _attentionNorm = new RmsNorm(config.Dim);
        _attention = new LightningAttention(
            config.Dim,
            config.Heads,
            layer,
            config.Layers,
            options: LightningAttentionOptions.MiniMax with { NormEps = RmsNorm.DefaultEps, OperatorType = attentionType });
        _mlpNorm = new RmsNorm(config.Dim);
        _mlp = new SwiGlu(config);
        RegisterComponents();
    }

    /// <summary>The attention's state of sequences that have had no byte yet.</summary>
    public LightningAttentionState NewState(long batchSize) => _attention.new_state(batchSize);

    public override Tensor forward(Tensor x, AttentionState? state)
    {
        using var scope = NewDisposeScope();
        var h = x + _attention.call(_attentionNorm.call(x), state);
        return (h + _mlp.call(_mlpNorm.call(h))).MoveToOuterDisposeScope();
    }
}
