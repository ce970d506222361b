using TorchSharp;
using static TorchSharp.torch;

namespace MiniMax.Model;

/// <summary>Rotary position embedding of whole heads: channel i is rotated with channel i + D / 2.</summary>
/// <param name="Cos">[B or 1, 1, N, D / 2].</param>
/// <param name="Sin">As Cos.</param>
internal readonly record struct Rotary(Tensor Cos, Tensor Sin)
{
    /// <summary>
    /// The angles <c>position * theta^(-2 i / D)</c>, rounded to fp32 where transformers rounds them.
    /// </summary>
    /// <param name="positions">[B or 1, N], int64.</param>
    /// <param name="headDim">D.</param>
    /// <param name="theta">Base of the frequencies.</param>
    public static Rotary Of(Tensor positions, long headDim, double theta)
    {
        using var scope = NewDisposeScope();
        var exponents = arange(0, headDim, 2, ScalarType.Float32, positions.device) / headDim;
        var frequencies = tensor((float)theta, device: positions.device).pow(exponents).reciprocal();
        var angles = positions.to(ScalarType.Float32).unsqueeze(1).unsqueeze(-1) * frequencies;
        var (cosines, sines) = (angles.cos(), angles.sin());
        return new Rotary(cosines.MoveToOuterDisposeScope(), sines.MoveToOuterDisposeScope());
    }

    /// <param name="x">[B, H, N, D].</param>
    public Tensor Apply(Tensor x)
    {
        using var scope = NewDisposeScope();
        var halves = x.chunk(2, dim: -1);
        var first = (halves[0] * Cos) - (halves[1] * Sin);
        var second = (halves[1] * Cos) + (halves[0] * Sin);
        return cat([first, second], -1).MoveToOuterDisposeScope();
    }
}
