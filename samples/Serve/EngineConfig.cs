using CharLm;

namespace Serve;

/// <summary>The limits of an engine.</summary>
internal sealed record EngineConfig
{
    /// <summary>Streams that are served at a time: slots of the pool.</summary>
    public required int Streams { get; init; }

    /// <summary>Prompt tokens that are read in one step.</summary>
    public required int MaxPrefillTokens { get; init; }

    /// <summary>
    /// Prompts are read in chunks of so many tokens, counted from their first one; the last chunk is what is left.
    /// Where a prompt is cut so depends on nothing else, and above all not on what other prompts leave of a step.
    /// </summary>
    public required int ChunkTokens { get; init; }

    /// <summary>Whether results hold the fingerprint of each token's logits.</summary>
    public bool RecordLogits { get; init; }

    public EngineConfig Checked() =>
        ChunkTokens <= MaxPrefillTokens
            ? this
            : throw new UserErrorException(
                $"--chunk {ChunkTokens} is more than --max-prefill-tokens {MaxPrefillTokens}: no chunk would fit");
}
