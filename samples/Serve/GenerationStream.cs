using LightningAttn;

namespace Serve;

/// <summary>A request that is being served: its slot, how much of the prompt is read, what was generated.</summary>
internal sealed class GenerationStream(Request request, StateSlot slot)
{
    private readonly List<byte> _generated = [];
    private readonly List<ulong> _logits = [];

    public Request Request { get; } = request;

    /// <summary>Where its states are in every layer of the pool.</summary>
    public StateSlot Slot { get; } = slot;

    /// <summary>Tokens of the prompt whose pass is done or queued.</summary>
    public int PromptTokens { get; private set; }

    public bool PromptIsRead => PromptTokens == Request.Prompt.Length;

    public bool IsFinished => _generated.Count == Request.NewTokens;

    public IReadOnlyList<byte> Generated => _generated;

    /// <summary>Fingerprints of the logits of each generated token, where they are recorded.</summary>
    public IReadOnlyList<ulong> Logits => _logits;

    public PromptChunk NextChunk(int tokens) =>
        new(this, PromptTokens, Math.Min(tokens, Request.Prompt.Length - PromptTokens));

    public void Advance(PromptChunk chunk) => PromptTokens += chunk.Length;

    public void Append(byte token, ulong? logits)
    {
        _generated.Add(token);
        if (logits is { } fingerprint)
        {
            _logits.Add(fingerprint);
        }
    }
}

/// <summary>A part of a prompt that is read in one step.</summary>
internal readonly record struct PromptChunk(GenerationStream Stream, int Start, int Length)
{
    public ReadOnlySpan<byte> Tokens => Stream.Request.Prompt.AsSpan(Start, Length);

    public bool IsFirst => Start == 0;

    public bool IsLast => Start + Length == Stream.Request.Prompt.Length;
}
