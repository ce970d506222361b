using TorchSharp;
using static TorchSharp.torch;

namespace LightningAttn.Benchmarks;

/// <summary>Thrown when results are wrong: then no time is worth printing.</summary>
internal sealed class GateException(string message) : Exception(message);

/// <summary>Largest relative RMS errors of a head against the float64 recurrence; NaN if any is NaN.</summary>
/// <param name="Output">Of the output.</param>
/// <param name="State">Of the final state.</param>
/// <param name="Gradients">Null where there are none.</param>
internal readonly record struct Errors(double Output, double State, GradientErrors? Gradients)
{
    public Errors Or(Errors other) =>
        new(
            Worse(Output, other.Output),
            Worse(State, other.State),
            Gradients is { } mine && other.Gradients is { } others ? mine.Or(others) : null);

    // Math.Max would do, but says less plainly that NaN must win.
    public static double Worse(double a, double b) => double.IsNaN(a) || double.IsNaN(b) ? double.NaN : Math.Max(a, b);
}

/// <summary>The same of dq, dk and dv.</summary>
internal readonly record struct GradientErrors(double Q, double K, double V)
{
    internal double Worst => Errors.Worse(Q, Errors.Worse(K, V));

    public GradientErrors Or(GradientErrors other) =>
        new(Errors.Worse(Q, other.Q), Errors.Worse(K, other.K), Errors.Worse(V, other.V));
}

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

    /// <param name="output">[B, H, N, E].</param>
    /// <param name="state">The final one, [B, H, D, E].</param>
    /// <param name="gradients">dq, dk and dv, or null.</param>
    /// <param name="truth">Of the same inputs.</param>
    public static Errors ErrorsOf(Tensor output, Tensor state, Tensor[]? gradients, Truth truth)
    {
        var errors = new Errors(0, 0, gradients is null ? null : new GradientErrors(0, 0, 0));
        foreach (var (at, expected) in truth.Heads.Zip(truth.Results))
        {
            errors = errors.Or(new(
                RelativeRms(HeadOf(output, at), expected.Output),
                RelativeRms(HeadOf(state, at), expected.State),
                gradients is not [var q, var k, var v]
                    ? null
                    : new GradientErrors(
                        RelativeRms(HeadOf(q, at), expected.GradQ),
                        RelativeRms(HeadOf(k, at), expected.GradK),
                        RelativeRms(HeadOf(v, at), expected.GradV))));
        }

        return errors;
    }

    /// <summary>The errors of decoded tokens and of the states after them.</summary>
    /// <param name="inputs">Of the call.</param>
    /// <param name="statesBefore">The pool before the call.</param>
    /// <param name="output">[B, Td, H*E] or, of one token, [B, H*E]; null where there is none.</param>
    /// <param name="states">The pool that was written; null where none was.</param>
    public static Errors ErrorsOfDecode(DecodeInputs inputs, Tensor statesBefore, Tensor? output, Tensor? states)
    {
        var (heads, tokens, d) = ((int)inputs.Q.size(1), (int)inputs.Q.size(2), (int)inputs.Q.size(3));
        var rates = ToDoubles(inputs.DecayRates);
        using var perToken = output?.view(-1, tokens, heads, d);
        using var perHead = perToken?.transpose(1, 2);
        var errors = new Errors(0, 0, null);
        foreach (var at in Picked((int)inputs.Q.size(0), heads))
        {
            var expected = new HeadRecurrence(
                HeadOf(inputs.Q, at), HeadOf(inputs.K, at), HeadOf(inputs.V, at), [], rates[at.Head],
                HeadOf(statesBefore, at), d, d);
            errors = errors.Or(new(
                perHead is null ? 0 : RelativeRms(HeadOf(perHead, at), expected.Output),
                states is null ? 0 : RelativeRms(HeadOf(states, at), expected.State),
                null));
        }

        return errors;
    }

    /// <summary>The errors of a packed batch, of its slowest and of its fastest decaying head in every sequence.</summary>
    /// <param name="inputs">Of the call; the pool as the call left it.</param>
    /// <param name="lengths">Of the call.</param>
    /// <param name="statesBefore">The pool before the call; null where sequences started from zeros.</param>
    /// <param name="output">[T, H, E].</param>
    public static Errors ErrorsOfVarlen(VarlenInputs inputs, Lengths lengths, Tensor? statesBefore, Tensor output)
    {
        var (tokens, heads, d) = ((int)inputs.Q.size(0), (int)inputs.Q.size(1), (int)inputs.Q.size(2));
        var sequences = (int)inputs.Pool.size(0);
        var offsets = VarlenInputs.OffsetsOf(lengths, tokens, sequences);
        var rates = ToDoubles(inputs.Whole.DecayRates);
        var places = new[] { 0, heads - 1 }
            .SelectMany(head => Enumerable.Range(0, sequences).Select(sequence => new HeadIndex(sequence, head)))
            .Where(at => offsets[at.Sequence + 1] > offsets[at.Sequence])
            .ToArray();
        var columns = places.Select(at => (
            Q: Rows(inputs.Q, at),
            K: Rows(inputs.K, at),
            V: Rows(inputs.V, at),
            Before: statesBefore is null ? [] : HeadOf(statesBefore, at),
            Output: Rows(output, at),
            State: HeadOf(inputs.Pool, at))).ToArray();
        var errors = new Errors[places.Length];
        Parallel.For(0, places.Length, i =>
        {
            var (q, k, v, before, actual, state) = columns[i];
            var expected = new HeadRecurrence(q, k, v, [], rates[places[i].Head], before, d, d);
            errors[i] = new(RelativeRms(actual, expected.Output), RelativeRms(state, expected.State), null);
        });
        return errors.Aggregate((a, b) => a.Or(b));

        double[] Rows(Tensor x, HeadIndex at)
        {
            using var scope = NewDisposeScope();
            var (first, end) = (offsets[at.Sequence], offsets[at.Sequence + 1]);
            return ToDoubles(x.select(1, at.Head).narrow(0, first, end - first));
        }
    }

    /// <exception cref="GateException">An error is above the ceiling or NaN.</exception>
    public static void Require(string what, Errors errors, ScalarType type)
    {
        var worst = Errors.Worse(errors.Output, Errors.Worse(errors.State, errors.Gradients?.Worst ?? 0));
        if (!(worst <= Ceiling(type)))
        {
            throw new GateException(
                $"{what}: relative error {worst:G3} against the float64 recurrence, above {Ceiling(type):G3}");
        }
    }

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
