using TorchSharp;
using static TorchSharp.torch;

namespace LightningAttn.Benchmarks;

/// <summary>Thrown when results are wrong: then no time is worth printing.</summary>
internal sealed class GateException(string message) : Exception(message);

/// <summary>
/// Compares results with the float64 recurrence, on the slowest, a middle and the fastest decaying head of the first
/// and the last sequence.
/// </summary>
internal static class CorrectnessGate
{
    /// <summary>The largest relative RMS error of any head that passes.</summary>
    public static double Ceiling(ScalarType type) =>
        type switch
        {
            ScalarType.Float32 => 1e-5,
            ScalarType.Float16 => 1e-3,
            _ => 8e-3,
        };

    /// <summary>Results of one forward pass and, unless they are null, its gradients.</summary>
    internal readonly record struct Results(Tensor Output, Tensor State, Tensor? GradQ, Tensor? GradK, Tensor? GradV);

    /// <summary>What the recurrence gives for the heads that are looked at.</summary>
    public static Truth TruthOf(SequenceInputs inputs, bool gradients)
    {
        var (d, e) = ((int)inputs.Q.size(3), (int)inputs.V.size(3));
        var rates = ToDoubles(inputs.DecayRates);
        var heads = Picked((int)inputs.Q.size(0), (int)inputs.Q.size(1));
        var results = new HeadRecurrence[heads.Length];
        var columns = heads.Select(at => (
            Q: HeadOf(inputs.Q, at),
            K: HeadOf(inputs.K, at),
            V: HeadOf(inputs.V, at),
            Gradient: gradients ? HeadOf(inputs.GradOutput, at) : [])).ToArray();
        Parallel.For(0, heads.Length, i =>
        {
            var (q, k, v, gradient) = columns[i];
            results[i] = new HeadRecurrence(q, k, v, gradient, rates[heads[i].Head], [], d, e);
        });
        return new Truth(heads, results);
    }

    /// <summary>The largest relative RMS error over the heads and results; NaN if any is NaN.</summary>
    public static double ErrorOf(Results results, Truth truth)
    {
        var worst = 0.0;
        for (var i = 0; i < truth.Heads.Length; i++)
        {
            var (at, expected) = (truth.Heads[i], truth.Results[i]);
            worst = Worse(worst, RelativeRms(HeadOf(results.Output, at), expected.Output));
            worst = Worse(worst, RelativeRms(HeadOf(results.State, at), expected.State));
            if (results.GradQ is not null)
            {
                worst = Worse(worst, RelativeRms(HeadOf(results.GradQ, at), expected.GradQ));
                worst = Worse(worst, RelativeRms(HeadOf(results.GradK!, at), expected.GradK));
                worst = Worse(worst, RelativeRms(HeadOf(results.GradV!, at), expected.GradV));
            }
        }

        return worst;
    }

    /// <summary>The largest relative RMS error of a decoded token [B, H*E] and of the states that it left.</summary>
    public static double ErrorOfDecode(DecodeInputs inputs, Tensor statesBefore, Tensor output)
    {
        var (heads, d) = ((int)inputs.Q.size(1), (int)inputs.Q.size(3));
        var rates = ToDoubles(inputs.DecayRates);
        using var perHead = output.view(-1, heads, d);
        var worst = 0.0;
        foreach (var at in Picked((int)inputs.Q.size(0), heads))
        {
            var expected = new HeadRecurrence(
                HeadOf(inputs.Q, at), HeadOf(inputs.K, at), HeadOf(inputs.V, at), [], rates[at.Head],
                HeadOf(statesBefore, at), d, d);
            worst = Worse(worst, RelativeRms(HeadOf(perHead, at), expected.Output));
            worst = Worse(worst, RelativeRms(HeadOf(inputs.Cache, at), expected.State));
        }

        return worst;
    }

    /// <exception cref="GateException">The error is above the ceiling or NaN.</exception>
    public static double Require(string what, double error, ScalarType type) =>
        error <= Ceiling(type)
            ? error
            : throw new GateException(
                $"{what}: relative error {error:G3} against the float64 recurrence, above {Ceiling(type):G3}");

    // Math.Max would do, but says less plainly that NaN must win.
    private static double Worse(double a, double b) => double.IsNaN(a) || double.IsNaN(b) ? double.NaN : Math.Max(a, b);

    private static double RelativeRms(double[] actual, double[] expected)
    {
        var (difference, norm) = (0.0, 0.0);
        for (var i = 0; i < expected.Length; i++)
        {
            difference += (actual[i] - expected[i]) * (actual[i] - expected[i]);
            norm += expected[i] * expected[i];
        }

        return Math.Sqrt(difference / norm);
    }

    private static HeadIndex[] Picked(int batch, int heads) =>
        new[] { new HeadIndex(0, 0), new(batch - 1, heads / 2), new(batch - 1, heads - 1) }.Distinct().ToArray();

    private static double[] HeadOf(Tensor x, HeadIndex at)
    {
        using var scope = NewDisposeScope();
        return ToDoubles(x.detach()[at.Sequence, at.Head]);
    }

    private static double[] ToDoubles(Tensor x)
    {
        using var scope = NewDisposeScope();
        return x.cpu().to(float64).contiguous().data<double>().ToArray();
    }

    internal readonly record struct HeadIndex(int Sequence, int Head);

    internal sealed record Truth(HeadIndex[] Heads, HeadRecurrence[] Results);
}
