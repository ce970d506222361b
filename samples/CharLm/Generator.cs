using CharLm.Model;
using TorchSharp;
using static TorchSharp.torch;

namespace CharLm;

/// <summary>Continues a text: one prefill of the prompt, then one decode step per byte.</summary>
internal static class Generator
{
    /// <param name="model">The model.</param>
    /// <param name="prompt">At least one byte.</param>
    /// <param name="temperature">Divides the logits; 0 takes the likeliest byte every time.</param>
    /// <param name="seed">The same seed gives the same text.</param>
    /// <returns>Bytes without end, computed as they are asked for.</returns>
    public static IEnumerable<byte> Continue(ByteLanguageModel model, byte[] prompt, double temperature, ulong seed)
    {
        var device = model.parameters().First().device;
        var random = new SplitMix64(seed);
        using var state = model.NewState(batchSize: 1);
        var pending = prompt;
        while (true)
        {
            var next = Sample(NextByteLogits(model, pending, state, device), temperature, random.NextDouble());
            yield return next;
            pending = [next];
        }
    }

    private static float[] NextByteLogits(ByteLanguageModel model, byte[] text, DecodingState state, Device device)
    {
        using var scope = NewDisposeScope();
        using var noGrad = no_grad();
        var tokens = tensor(text.Select(b => (long)b).ToArray(), 1, text.Length, device: device);
        return model.call(tokens, state.Layers).select(1, -1).to(float32).cpu().data<float>().ToArray();
    }

    /// <param name="logits">[256].</param>
    /// <param name="temperature">0: the likeliest byte.</param>
    /// <param name="uniform">A number in [0, 1).</param>
    private static byte Sample(float[] logits, double temperature, double uniform)
    {
        var best = (byte)Array.IndexOf(logits, logits.Max());
        if (temperature == 0)
        {
            return best;
        }

        var weights = Array.ConvertAll(logits, logit => Math.Exp((logit - logits[best]) / temperature));
        var left = uniform * weights.Sum();
        for (var b = 0; b < weights.Length; b++)
        {
            left -= weights[b];
            if (left < 0)
            {
                return (byte)b;
            }
        }

        return best;
    }
}
