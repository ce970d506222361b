using TorchSharp;
using TorchSharp.Modules;
using TorchSharp.Utils;
using static TorchSharp.torch;

namespace MiniMax.Model;

/// <summary>Softmax attention with rotary positions; several query heads share a key/value head.</summary>
internal sealed class SoftmaxAttention : nn.Module<Tensor, Pass, KeyValueCache?, Tensor>
{
    private readonly long _headDim;
    private readonly long _queriesPerKey;

    [ComponentName(Name = "q_proj")]
    private readonly Linear _queryProj;

    [ComponentName(Name = "k_proj")]
    private readonly Linear _keyProj;

    [ComponentName(Name = "v_proj")]
    private readonly Linear _valueProj;

    [ComponentName(Name = "o_proj")]
    private readonly Linear _outProj;

    public SoftmaxAttention(MiniMaxConfig config)
        : base(nameof(SoftmaxAttention))
    {
        (_headDim, _queriesPerKey) = (config.HeadDim, config.Heads / config.KeyValueHeads);
        var (queries, keys) = (config.Heads * config.HeadDim, config.KeyValueHeads * config.HeadDim);
        _queryProj = nn.Linear(config.HiddenSize, queries, hasBias: false);
        _keyProj = nn.Linear(config.HiddenSize, keys, hasBias: false);
        _valueProj = nn.Linear(config.HiddenSize, keys, hasBias: false);
        _outProj = nn.Linear(queries, config.HiddenSize, hasBias: false);
        RegisterComponents();
    }

    public override Tensor forward(Tensor x, Pass pass, KeyValueCache? cache)
    {
        using var scope = NewDisposeScope();
        var q = pass.Rotary.Apply(Heads(_queryProj.call(x)));
        var k = pass.Rotary.Apply(Heads(_keyProj.call(x)));
        var v = Heads(_valueProj.call(x));
        if (cache is not null)
        {
            (k, v) = cache.Append(k, v);
        }

        var attended = nn.functional.scaled_dot_product_attention(
            q, PerQuery(k), PerQuery(v), pass.Visible, is_casual: pass.IsCausal);
        return _outProj.call(attended.transpose(1, 2).flatten(2)).MoveToOuterDisposeScope();
    }

    /// <summary>[B, N, H * D] to [B, H, N, D].</summary>
    private Tensor Heads(Tensor x) => x.unflatten(2, [-1, _headDim]).transpose(1, 2);

    /// <summary>The head of keys or values of each query head.</summary>
    private Tensor PerQuery(Tensor x) => _queriesPerKey == 1 ? x : x.repeat_interleave(_queriesPerKey, 1);
}
