using MiniMax.Model;
using TorchSharp;
using static TorchSharp.torch;

namespace MiniMax.Verification;

/// <summary>Compares a model with what transformers computes.</summary>
internal static class Verifier
{
    /// <summary>Of the logits, then of each attention layer, from one pass over the whole text without a state.
    /// </summary>
    public static List<Difference> Compare(MiniMaxModel model, ReferenceRun reference, Device device)
    {
        using var scope = NewDisposeScope();
        using var noGrad = no_grad();
        var real = Padding(reference);
        var layers = new List<Difference>();
        model.OnAttention = (layer, output) => layers.Add(Difference.Of(
            $"{reference.Kind}, attention {layer} ({(model.Config.IsLinear[layer] ? "linear" : "softmax")})",
            output,
            reference.Attention[layer],
            real));
        try
        {
            var logits = model.call(reference.Tokens.to(device), real?.to(device), null);
            return [Difference.Of($"{reference.Kind}, logits", logits, reference.Logits, real), .. layers];
        }
        finally
        {
            model.OnAttention = null;
        }
    }

    /// <summary>How many tokens are those of the reference, of all.</summary>
    /// <param name="model">The model.</param>
    /// <param name="reference">What to compare with.</param>
    /// <param name="device">Where the model is.</param>
    /// <param name="chunk">The prompts are read so many tokens at a time; 0: at once.</param>
    public static (long Same, long All) CompareTokens(
        MiniMaxModel model, ReferenceRun reference, Device device, long chunk)
    {
        using var scope = NewDisposeScope();
        var expected = reference.Generated;
        var (rows, count) = (expected.size(0), expected.size(1));
        var tokens = reference.Tokens.to(device);
        long[][] steps = [.. Generator.Continue(model, tokens, Padding(reference)?.to(device), chunk).Take((int)count)];
        var same = 0L;
        for (var step = 0; step < count; step++)
        {
            for (var row = 0; row < rows; row++)
            {
                same += steps[step][row] == expected[row, step].item<long>() ? 1 : 0;
            }
        }

        return (same, rows * count);
    }

    /// <summary>Null where there is none, so that this path is taken too.</summary>
    private static Tensor? Padding(ReferenceRun reference) => reference.Real.all().item<bool>() ? null : reference.Real;
}
