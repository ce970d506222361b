using System.Numerics;
using TorchSharp;
using static TorchSharp.torch;

namespace LightningAttn;

public static partial class Functional
{
    /// <summary>
    /// The decay rates of the heads in nats per token, the ALiBi slopes (Press et al., 2021, arXiv:2108.12409):
    /// <code>
    /// pow2(n)   = [2^(-8 i / n) for i = 1..n]
    /// slopes(n) = pow2(n)                                    if n is a power of two
    ///           = pow2(p) ++ slopes(2p)[0::2][: n - p]       else, with p = 2^floor(log2 n)
    /// </code>
    /// </summary>
    /// <param name="num_heads">Heads, at least 1.</param>
    /// <returns>float32 [num_heads] on the CPU.</returns>
    /// <exception cref="ArgumentException">num_heads is less than 1.</exception>
    public static Tensor build_slope_tensor(long num_heads) => SlopeTensor(num_heads, factor: 1);

    /// <summary>
    /// The decay rates of one layer's heads: those of <see cref="build_slope_tensor(long)"/> times
    /// <c>1 - layer_idx / (num_layers - 1) + 1e-5</c>, or times <c>1 + 1e-5</c> when there is one layer.
    /// </summary>
    /// <param name="num_heads">Heads, at least 1.</param>
    /// <param name="layer_idx">The layer, from 0, counted over all layers of the model.</param>
    /// <param name="num_layers">All layers of the model, at least 1.</param>
    /// <returns>float32 [num_heads] on the CPU.</returns>
    /// <exception cref="ArgumentException">num_heads or num_layers is less than 1, or layer_idx is not in
    /// [0, num_layers).</exception>
    public static Tensor build_slope_tensor(long num_heads, long layer_idx, long num_layers)
    {
        if (num_layers < 1)
        {
            throw new ArgumentException($"num_layers is {num_layers}, expected at least 1.", nameof(num_layers));
        }

        if (layer_idx < 0 || layer_idx >= num_layers)
        {
            throw new ArgumentException(
                $"layer_idx is {layer_idx}, expected 0 to {num_layers - 1} for {num_layers} layers.",
                nameof(layer_idx));
        }

        double depth = num_layers == 1 ? 0 : (double)layer_idx / (num_layers - 1);
        return SlopeTensor(num_heads, 1 - depth + 1e-5);
    }

    private static Tensor SlopeTensor(long heads, double factor)
    {
        if (heads < 1)
        {
            throw new ArgumentException($"num_heads is {heads}, expected at least 1.", "num_heads");
        }

        var slopes = new float[heads];
        for (long head = 0; head < heads; head++)
        {
            slopes[head] = (float)(Slope(heads, head) * factor);
        }

        return torch.tensor(slopes);
    }

    private static double Slope(long heads, long head)
    {
        long power = 1L << BitOperations.Log2((ulong)heads);
        return head < power
            ? Math.Pow(2, -8.0 * (head + 1) / power)
            : Math.Pow(2, -8.0 * ((2 * (head - power)) + 1) / (2 * power));
    }
}
