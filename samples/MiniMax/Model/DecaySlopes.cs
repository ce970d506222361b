namespace MiniMax.Model;

/// <summary>The decay rates of a linear layer, in nats per token.</summary>
/// <remarks>
/// As transformers computes them for MiniMax, for any number of heads:
/// <code>
/// s_h = 2^(-8 (h + 1) / heads) * (1 - layer / (layers - 1 + 1e-5) + 1e-5)        h = 0 .. heads - 1
/// </code>
/// <c>Functional.build_slope_tensor</c> has the slopes of ALiBi, which are others where the number of heads is no power
/// of two, and no 1e-5 below the line.
/// </remarks>
internal static class DecaySlopes
{
    private const double Epsilon = 1e-5;

    public static float[] Of(MiniMaxConfig config, int layer)
    {
        var depth = 1 - (layer / (config.Layers - 1 + Epsilon)) + Epsilon;
        var rates = new float[config.Heads];
        for (var head = 0; head < rates.Length; head++)
        {
            rates[head] = (float)(Math.Pow(2, -8.0 * (head + 1) / config.Heads) * depth);
        }

        return rates;
    }
}
