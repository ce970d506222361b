using System.Globalization;
using CharLm;

namespace MiniMax;

/// <summary>What the command line says; null where it says nothing.</summary>
internal sealed record Options
{
    public required string Checkpoint { get; init; }

    public string? PromptIds { get; init; }

    public int? Generate { get; init; }

    public int? Chunk { get; init; }

    public string? Verify { get; init; }

    public required string Device { get; init; }

    /// <summary>The tokens of --prompt-ids, checked against a vocabulary.</summary>
    public long[] ResolvePrompt(long vocabularySize)
    {
        var words = (PromptIds ?? "0").Split([',', ' '], StringSplitOptions.RemoveEmptyEntries);
        if (words.Length == 0)
        {
            throw new UserErrorException("--prompt-ids has no token");
        }

        return Array.ConvertAll(words, word =>
            long.TryParse(word, NumberStyles.None, CultureInfo.InvariantCulture, out var id) && id < vocabularySize
                ? id
                : throw new UserErrorException($"--prompt-ids: {word} is no token from 0 to {vocabularySize - 1}"));
    }
}
