using TorchSharp;
using static TorchSharp.torch;

namespace MiniMax.Verification;

/// <summary>How far values are from those of a reference.</summary>
/// <param name="What">Of what.</param>
/// <param name="Largest">The largest difference over the largest reference value; NaN if any value is.</param>
/// <param name="Rms">The root mean square of the differences over that of the reference values.</param>
internal sealed record Difference(string What, double Largest, double Rms)
{
    /// <summary>The most that <see cref="Largest"/> may be: fp32 and another order of sums.</summary>
    public const double Limit = 1e-4;

    public bool IsSmall => Largest <= Limit && Rms <= Limit;

    /// <param name="what">Of what.</param>
    /// <param name="values">[B, N, ...], of any device.</param>
    /// <param name="expected">The reference, on the CPU.</param>
    /// <param name="real">[B, N], bool: the tokens that are compared; null: all.</param>
    public static Difference Of(string what, Tensor values, Tensor expected, Tensor? real)
    {
        using var scope = NewDisposeScope();
        var (actual, truth) = (Rows(values, real), Rows(expected, real));
        var difference = actual - truth;
        return new Difference(
            what,
            difference.abs().max().item<double>() / truth.abs().max().item<double>(),
            Math.Sqrt(difference.square().mean().item<double>() / truth.square().mean().item<double>()));
    }

    private static Tensor Rows(Tensor values, Tensor? real)
    {
        var rows = values.detach().cpu().to(ScalarType.Float64).flatten(0, 1);
        return real is null ? rows : rows.index_select(0, real.cpu().flatten().nonzero().squeeze(1));
    }
}
