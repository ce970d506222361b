using CharLm;

namespace Serve;

/// <summary>
/// Requests that follow from a seed. Time is counted in steps and not in seconds: a run meets the same requests at the
/// same steps on every machine.
/// </summary>
internal static class Workload
{
    private const int LongestWord = 9;

    /// <summary>
    /// Poisson arrivals; lengths of prompts from 1 to the longest, evenly on a logarithmic scale: many short ones and
    /// some that take several chunks; half to all of the new tokens.
    /// </summary>
    /// <param name="seed">The same seed gives the same requests.</param>
    /// <param name="count">How many.</param>
    /// <param name="perStep">Mean number of arrivals per step.</param>
    /// <param name="longestPrompt">Bytes.</param>
    /// <param name="mostNewTokens">Bytes.</param>
    /// <param name="text">What prompts are pieces of; null: words of random letters.</param>
    public static IReadOnlyList<Request> Create(
        ulong seed, int count, double perStep, int longestPrompt, int mostNewTokens, byte[]? text)
    {
        var random = new SplitMix64(seed);
        var requests = new Request[count];
        var time = 0.0;
        for (var id = 0; id < count; id++)
        {
            time -= Math.Log(1 - random.NextDouble()) / perStep;
            var length = (int)Math.Exp(random.NextDouble() * Math.Log(longestPrompt + 1));
            var prompt = text is null ? Words(ref random, length) : Piece(ref random, length, text);
            var newTokens = mostNewTokens - (int)random.NextBelow((mostNewTokens / 2) + 1);
            requests[id] = new Request(id, (int)time, prompt, Math.Max(1, newTokens));
        }

        return requests;
    }

    private static byte[] Piece(ref SplitMix64 random, int length, byte[] text)
    {
        length = Math.Min(length, text.Length);
        var start = (int)random.NextBelow(text.Length - length + 1);
        return text[start..(start + length)];
    }

    private static byte[] Words(ref SplitMix64 random, int length)
    {
        var text = new byte[length];
        var untilSpace = (int)random.NextBelow(LongestWord) + 1;
        for (var i = 0; i < length; i++)
        {
            var space = untilSpace-- == 0;
            text[i] = (byte)(space ? ' ' : 'a' + random.NextBelow(26));
            untilSpace = space ? (int)random.NextBelow(LongestWord) + 1 : untilSpace;
        }

        return text;
    }
}
