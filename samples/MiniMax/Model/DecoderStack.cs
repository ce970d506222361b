using TorchSharp;
using TorchSharp.Modules;
using TorchSharp.Utils;
using static TorchSharp.torch;
using RmsNorm = CharLm.Model.RmsNorm;

namespace MiniMax.Model;

/// <summary>Tokens [B, N] to the normalised output [B, N, hidden] of the last layer.</summary>
internal sealed class DecoderStack : nn.Module<Tensor, Pass, Tensor>
{
    [ComponentName(Name = "embed_tokens")]
    private readonly Embedding _embedding;

    [ComponentName(Name = "layers")]
    private readonly ModuleList<DecoderLayer> _layers;

    [ComponentName(Name = "norm")]
    private readonly RmsNorm _norm;

    public DecoderStack(MiniMaxConfig config)
        : base(nameof(DecoderStack))
    {
        _embedding = nn.Embedding(config.VocabularySize, config.HiddenSize);
        _layers = nn.ModuleList(
            Enumerable.Range(0, config.Layers).Select(layer => new DecoderLayer(config, layer)).ToArray());
        _norm = new RmsNorm(config.HiddenSize, config.NormEps);
        RegisterComponents();
    }

    /// <summary>[vocabulary, hidden].</summary>
    public Tensor EmbeddingWeight => _embedding.weight!;

    public DecoderState NewState(long batchSize) => new([.. _layers.Select(layer => layer.NewState(batchSize))]);

    public override Tensor forward(Tensor tokens, Pass pass)
    {
        using var scope = NewDisposeScope();
        var h = _embedding.call(tokens);
        foreach (var layer in _layers)
        {
            h = layer.call(h, pass);
        }

        return _norm.call(h).MoveToOuterDisposeScope();
    }
}
