using TorchSharp;
using TorchSharp.Modules;
using TorchSharp.Utils;
using static TorchSharp.torch;

namespace MiniMax.Model;

/// <summary>
/// Tokens [B, N] (int64) to the logits [B, N, vocabulary] of the token after each. Parameters are named as those of
/// transformers' MiniMaxForCausalLM.
/// </summary>
internal sealed class MiniMaxModel : nn.Module<Tensor, Tensor?, DecoderState?, Tensor>
{
    [ComponentName(Name = "model")]
    private readonly DecoderStack _stack;

    [ComponentName(Name = "lm_head")]
    private readonly Linear? _head; // null: the embedding's weights

    public MiniMaxModel(MiniMaxConfig config)
        : base(nameof(MiniMaxModel))
    {
        Config = config;
        _stack = new DecoderStack(config);
        _head = config.TiedEmbeddings ? null : nn.Linear(config.HiddenSize, config.VocabularySize, hasBias: false);
        RegisterComponents();
    }

    public MiniMaxConfig Config { get; }

    /// <summary>Is shown the output [B, N, hidden] of each attention layer of a pass; they are disposed after it.
    /// </summary>
    public Action<int, Tensor>? OnAttention { get; set; }

    /// <summary>The state of texts that have had no token yet, where the weights are.</summary>
    public DecoderState NewState(long batchSize) => _stack.NewState(batchSize);

    /// <param name="tokens">[B, N].</param>
    /// <param name="real">[B, N], bool, false where a token is padding on the left; null: none is.</param>
    /// <param name="state">What came before the tokens, moved on by them; null: nothing, and their end is not kept.
    /// </param>
    public override Tensor forward(Tensor tokens, Tensor? real, DecoderState? state)
    {
        using var scope = NewDisposeScope();
        var pass = new Pass(Config, tokens, real, state, OnAttention);
        var h = _stack.call(tokens, pass);
        state?.Advance(tokens.size(1), pass.AllReal);
        var logits = _head is null ? nn.functional.linear(h, _stack.EmbeddingWeight) : _head.call(h);
        return logits.MoveToOuterDisposeScope();
    }
}
