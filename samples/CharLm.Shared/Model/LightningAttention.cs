using LightningAttn;
using TorchSharp;
using TorchSharp.Modules;
using TorchSharp.Utils;
using static TorchSharp.torch;

namespace CharLm.Model;

/// <summary>The linear-attention layer of MiniMax-01: x [B, N, Dim] to [B, N, Dim].</summary>
/// <remarks>
/// q, k, v = silu(qkv_proj(x)), interleaved per head; o = lightning_attention(q, k, v);
/// y = out_proj(sigmoid(output_gate(x)) * RMSNorm(o)), the norm over all heads at once.
/// </remarks>
internal sealed class LightningAttention : nn.Module<Tensor, IAttentionState?, Tensor>
{
    private readonly int _layer;
    private readonly int _heads;
    private readonly ScalarType _attentionType;
    private readonly DecayRates _decayRates;

    [ComponentName(Name = "qkv_proj")]
    private readonly Linear _qkvProj;

    [ComponentName(Name = "output_gate")]
    private readonly Linear _outputGate;

    [ComponentName(Name = "norm")]
    private readonly RmsNorm _norm;

    [ComponentName(Name = "out_proj")]
    private readonly Linear _outProj;

    /// <param name="config">The model's sizes.</param>
    /// <param name="layer">Index of this layer, which sets its decay rates.</param>
    /// <param name="attentionType">Type that q, k and v are cast to for the operator; the state is fp32 for every
    /// one.</param>
    public LightningAttention(ModelConfig config, int layer, ScalarType attentionType)
        : base(nameof(LightningAttention))
    {
        _layer = layer;
        _heads = config.Heads;
        _attentionType = attentionType;
        _decayRates = new DecayRates(config.Heads, layer, config.Layers);
        _qkvProj = nn.Linear(config.Dim, 3 * config.Dim, hasBias: false);
        _outputGate = nn.Linear(config.Dim, config.Dim, hasBias: false);
        _norm = new RmsNorm(config.Dim);
        _outProj = nn.Linear(config.Dim, config.Dim, hasBias: false);
        RegisterComponents();
    }

    /// <param name="x">[B, N, Dim].</param>
    /// <param name="state">What came before x, moved on by N tokens; null: nothing, and the end is not kept
    /// (training).</param>
    public override Tensor forward(Tensor x, IAttentionState? state)
    {
        using var scope = NewDisposeScope();
        var qkv = nn.functional.silu(_qkvProj.call(x)).to(_attentionType);

        // Views with strides [.., 3D, H*3D, 1] of [B, N, H, 3D], which the operators read in place.
        var thirds = qkv.unflatten(2, [_heads, qkv.size(2) / _heads]).transpose(1, 2).chunk(3, dim: -1);
        var (q, k, v) = (thirds[0], thirds[1], thirds[2]);
        var rates = _decayRates.On(x.device);

        var attended = state is null ? Attend(q, k, v, rates) : state.Attend(_layer, q, k, v, rates);
        var gate = _outputGate.call(x).sigmoid();
        return _outProj.call(gate * _norm.call(attended.to(x.dtype))).MoveToOuterDisposeScope();
    }

    protected override void Dispose(bool disposing)
    {
        if (disposing)
        {
            _decayRates.Dispose();
        }

        base.Dispose(disposing);
    }

    private static Tensor Attend(Tensor q, Tensor k, Tensor v, Tensor rates)
    {
        var (output, _) = Functional.lightning_attention(q, k, v, rates, output_block_states: false);
        return output.transpose(1, 2).flatten(2);
    }
}
