using MiniMax.Model;
using TorchSharp;
using static TorchSharp.torch;

namespace MiniMax;

/// <summary>Continues texts with the likeliest token every time.</summary>
internal static class Generator
{
    /// <param name="model">The model.</param>
    /// <param name="prompts">[B, N], at least one token each.</param>
    /// <param name="real">[B, N], bool, false where a token is padding on the left; null: none is.</param>
    /// <param name="chunk">The prompts are read so many tokens at a time; 0: at once.</param>
    /// <returns>The next token of each text, without end, computed as they are asked for.</returns>
    public static IEnumerable<long[]> Continue(MiniMaxModel model, Tensor prompts, Tensor? real = null, long chunk = 0)
    {
        using var state = model.NewState(prompts.size(0));
        var next = ReadPrompts(model, prompts, real, state, chunk > 0 ? chunk : prompts.size(1));
        while (true)
        {
            yield return next;
            next = Step(model, next, prompts.device, state);
        }
    }

    private static long[] ReadPrompts(MiniMaxModel model, Tensor prompts, Tensor? real, DecoderState state, long chunk)
    {
        using var scope = NewDisposeScope();
        using var noGrad = no_grad();
        Tensor? logits = null;
        for (var start = 0L; start < prompts.size(1); start += chunk)
        {
            var count = Math.Min(chunk, prompts.size(1) - start);
            logits = model.call(prompts.narrow(1, start, count), real?.narrow(1, start, count), state);
        }

        return Likeliest(logits!);
    }

    private static long[] Step(MiniMaxModel model, long[] tokens, Device device, DecoderState state)
    {
        using var scope = NewDisposeScope();
        using var noGrad = no_grad();
        return Likeliest(model.call(tensor(tokens, tokens.Length, 1, device: device), null, state));
    }

    /// <summary>After the last token of each row of logits [B, N, vocabulary].</summary>
    private static long[] Likeliest(Tensor logits) => logits.select(1, -1).argmax(1).cpu().data<long>().ToArray();
}
