namespace LightningAttn.Tests.Support;

/// <summary>
/// The error criterion. A result passes when its relative RMS error is within twice that of the same maths done eagerly
/// in the input's type plus a floor, and under a ceiling, and no head and no window of tokens is far worse than the
/// whole. NaN and infinity never pass.
/// </summary>
internal static class Accuracy
{
    /// <summary>A head or a window may be this much worse than the whole may be.</summary>
    private const double LocalFactor = 3;

    /// <summary>A local error counts against at least this part of the whole's magnitude.</summary>
    private const double LocalMagnitude = 0.05;

    private const int WindowRows = 16;

    /// <summary>
    /// A gradient of a rate is one number, the sum of a sequence's terms, which cancel. No average over elements evens
    /// its error out, and that of the eager result can be small by chance: its floor is this much higher.
    /// </summary>
    private const double SumFloorFactor = 4;

    /// <summary>What an element type allows.</summary>
    /// <param name="Floor">Relative RMS error that is always allowed: rounding of the result.</param>
    /// <param name="Ceiling">Relative RMS error that is never allowed, however bad the eager result.</param>
    /// <param name="Zero">What is below this is below the normal range of the state type and counts as zero.</param>
    internal readonly record struct Limits(double Floor, double Ceiling, double Zero)
    {
        internal static Limits Of(ScalarType dtype) => dtype switch
        {
            ScalarType.Float64 => new(1e-14, 1e-10, 1e-300),
            ScalarType.Float32 => new(5e-7, 2e-5, 1e-35),
            ScalarType.Float16 => new(3e-4, 5e-3, 1e-35),
            ScalarType.BFloat16 => new(2.5e-3, 3e-2, 1e-35),
            _ => throw new ArgumentOutOfRangeException(nameof(dtype)),
        };

        /// <summary>
        /// Of states, which are kept in the state type whatever the inputs' type: the products that enter them keep at
        /// least twice the bits of a half-precision input.
        /// </summary>
        internal static Limits OfStates(ScalarType dtype) =>
            dtype is ScalarType.Float16 or ScalarType.BFloat16 ? new(5e-6, 1e-4, 1e-35) : Of(dtype);
    }

    /// <summary>Null if the actual values pass, else what is wrong with them.</summary>
    /// <param name="actual">The values to judge, in rows of <paramref name="width"/>.</param>
    /// <param name="expected">The truth.</param>
    /// <param name="eagerError">Relative RMS error of the eager result.</param>
    /// <param name="limits">Those of the input's type.</param>
    /// <param name="rowsPerHead">Rows that belong together; windows do not cross them.</param>
    /// <param name="width">Length of a row.</param>
    internal static string? Fault(
        double[] actual, double[] expected, double eagerError, Limits limits, int rowsPerHead, int width)
    {
        if (actual.Length != expected.Length)
        {
            return $"{actual.Length} values, expected {expected.Length}";
        }

        int bad = Array.FindIndex(actual, static value => !double.IsFinite(value));
        if (bad >= 0)
        {
            return $"{actual[bad]} at element {bad}, expected {expected[bad]:g6}";
        }

        double magnitude = Rms(expected);
        if (magnitude < limits.Zero)
        {
            int nonzero = Array.FindIndex(actual, value => Math.Abs(value) > limits.Zero);
            return nonzero < 0 ? null : $"{actual[nonzero]:g6} at element {nonzero}, expected zeros";
        }

        double limit = Math.Min((2 * eagerError) + limits.Floor, limits.Ceiling);
        double error = RelativeError(actual, expected);
        if (!(error <= limit))
        {
            return $"relative RMS error {error:e2}, allowed {limit:e2} (eager {eagerError:e2})";
        }

        return LocalFault("head", rowsPerHead * width)
            ?? LocalFault("window", Math.Min(WindowRows, rowsPerHead) * width);

        string? LocalFault(string part, int length)
        {
            int head = rowsPerHead * width;
            for (int headStart = 0; headStart < actual.Length; headStart += head)
            {
                for (int start = headStart; start < headStart + head; start += length)
                {
                    int count = Math.Min(length, headStart + head - start);
                    ReadOnlySpan<double> truth = expected.AsSpan(start, count);
                    double scale = Math.Max(Rms(truth), LocalMagnitude * magnitude);
                    double local = RmsDifference(actual.AsSpan(start, count), truth) / scale;
                    if (!(local <= LocalFactor * limit))
                    {
                        return $"{part} at element {start}: relative RMS error {local:e2}, "
                            + $"allowed {LocalFactor * limit:e2} (whole {error:e2})";
                    }
                }
            }

            return null;
        }
    }

    /// <summary>Fails the test unless the tensor passes. Rows are the last axis, heads the first two.</summary>
    internal static void AssertClose(
        string name, Tensor actual, double[] expected, Tensor? eager, ScalarType dtype, string context = "")
    {
        AssertWithin(Limits.Of(dtype), name, actual, expected, eager, context);
    }

    /// <summary>The same for gradients of rates.</summary>
    internal static void AssertSumsClose(
        string name, Tensor actual, double[] expected, Tensor? eager, ScalarType dtype, string context = "")
    {
        Limits limits = Limits.Of(dtype);
        AssertWithin(limits with { Floor = SumFloorFactor * limits.Floor }, name, actual, expected, eager, context);
    }

    /// <summary>The same for states computed from inputs of <paramref name="dtype"/>.</summary>
    internal static void AssertStatesClose(
        string name, Tensor actual, double[] expected, Tensor? eager, ScalarType dtype, string context = "")
    {
        AssertWithin(Limits.OfStates(dtype), name, actual, expected, eager, context);
    }

    internal static double RelativeError(double[] actual, double[] expected)
    {
        double magnitude = Rms(expected);
        double error = RmsDifference(actual, expected);
        return magnitude == 0 ? (error == 0 ? 0 : double.PositiveInfinity) : error / magnitude;
    }

    private static void AssertWithin(
        Limits limits, string name, Tensor actual, double[] expected, Tensor? eager, string context)
    {
        double[] values = Values.Of(actual);
        double eagerError = eager is null ? 0 : RelativeError(Values.Of(eager), expected);
        long width = actual.dim() == 0 ? 1 : actual.size(-1);
        long heads = actual.dim() > 2 ? actual.size(0) * actual.size(1) : 1;
        long rows = width * heads == 0 ? 0 : actual.numel() / (width * heads);
        string? fault = Fault(values, expected, eagerError, limits, (int)rows, (int)width);
        if (fault is not null)
        {
            Assert.Fail($"{name}: {fault}{(context.Length > 0 ? $" [{context}]" : "")}");
        }
    }

    private static double Rms(ReadOnlySpan<double> values)
    {
        double sum = 0;
        foreach (double value in values)
        {
            sum += value * value;
        }

        return values.IsEmpty ? 0 : Math.Sqrt(sum / values.Length);
    }

    private static double RmsDifference(ReadOnlySpan<double> actual, ReadOnlySpan<double> expected)
    {
        double sum = 0;
        for (int i = 0; i < actual.Length; i++)
        {
            sum += (actual[i] - expected[i]) * (actual[i] - expected[i]);
        }

        return actual.IsEmpty ? 0 : Math.Sqrt(sum / actual.Length);
    }
}
