using LightningAttn.Modules;
using TorchSharp;
using TorchSharp.Modules;
using TorchSharp.Utils;
using static TorchSharp.torch;

namespace CharLm.Model;

/// <summary>Bytes [B, N] (int64) to the logits [B, N, 256] of the byte after each.</summary>
internal sealed class ByteLanguageModel : nn.Module<Tensor, IReadOnlyList<AttentionState>?, Tensor>
{
    [ComponentName(Name = "embed_tokens")]
    private readonly Embedding _embedding;

    [ComponentName(Name = "layers")]
    private readonly ModuleList<DecoderBlock> _blocks;

    [ComponentName(Name = "norm")]
    private readonly RmsNorm _norm;

    [ComponentName(Name = "lm_head")]
    private readonly Linear _head;

    public ByteLanguageModel(ModelConfig config, ScalarType attentionType)
        : base(nameof(ByteLanguageModel))
    {
        Config = config;
        _embedding = nn.Embedding(ModelConfig.VocabularySize, config.Dim);
        _blocks = nn.ModuleList(
            Enumerable.Range(0, config.Layers)
                .Select(layer => new DecoderBlock(config, layer, attentionType))
                .ToArray());
        _norm = new RmsNorm(config.Dim);
        _head = nn.Linear(config.Dim, ModelConfig.VocabularySize, hasBias: false);
        RegisterComponents();
        Initialise();
    }

    public ModelConfig Config { get; }

    /// <summary>The states of sequences that have had no byte yet, the caller's to dispose.</summary>
    public DecodingState NewState(long batchSize) => new([.. _blocks.Select(block => block.NewState(batchSize))]);

    /// <param name="tokens">Bytes.</param>
    /// <param name="states">Of each layer, what came before the bytes, moved on by them; null: nothing came before, and
    /// the end is not kept (training).</param>
    public override Tensor forward(Tensor tokens, IReadOnlyList<AttentionState>? states)
    {
        using var scope = NewDisposeScope();
        var h = _embedding.call(tokens);
        for (var layer = 0; layer < Config.Layers; layer++)
        {
            h = _blocks[layer].call(h, states?[layer]);
        }

        return _head.call(_norm.call(h)).MoveToOuterDisposeScope();
    }

    // Normal weights of variance 1 / fan-in. Those that write to the residual stream are divided by the square root of
    // how many do, so that the stream's variance at the top does not grow with the depth. The head starts at zero:
    // every byte equally likely.
    private void Initialise()
    {
        using var noGrad = no_grad();
        var residualScale = 1 / Math.Sqrt(2 * Config.Layers);
        foreach (var (name, weight) in named_parameters())
        {
            if (weight.dim() == 2 && !ReferenceEquals(weight, _embedding.weight))
            {
                var writesToResidual = name.EndsWith("out_proj.weight", StringComparison.Ordinal)
                    || name.EndsWith("down_proj.weight", StringComparison.Ordinal);
                nn.init.normal_(weight, 0, (writesToResidual ? residualScale : 1) / Math.Sqrt(weight.size(1)));
            }
        }

        nn.init.normal_(_embedding.weight!, 0, 1);
        nn.init.zeros_(_head.weight);
    }
}
