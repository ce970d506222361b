using TorchSharp;
using TorchSharp.Utils;
using static TorchSharp.torch;

namespace CharLm.Model;

/// <summary>Pre-norm residual block: attention, then SwiGLU.</summary>
internal sealed class DecoderBlock : nn.Module<Tensor, IAttentionState?, Tensor>
{
    [ComponentName(Name = "input_layernorm")]
    private readonly RmsNorm _attentionNorm;

    [ComponentName(Name = "self_attn")]
    private readonly LightningAttention _attention;

    [ComponentName(Name = "post_attention_layernorm")]
    private readonly RmsNorm _mlpNorm;

    [ComponentName(Name = "mlp")]
    private readonly SwiGlu _mlp;

    public DecoderBlock(ModelConfig config, int layer, ScalarType attentionType)
        : base(nameof(DecoderBlock))
    {
        _attentionNorm = new RmsNorm(config.Dim);
        _attention = new LightningAttention(config, layer, attentionType);
        _mlpNorm = new RmsNorm(config.Dim);
        _mlp = new SwiGlu(config);
        RegisterComponents();
    }

    public override Tensor forward(Tensor x, IAttentionState? state)
    {
        using var scope = NewDisposeScope();
        var h = x + _attention.call(_attentionNorm.call(x), state);
        return (h + _mlp.call(_mlpNorm.call(h))).MoveToOuterDisposeScope();
    }
}
