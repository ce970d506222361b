namespace LightningAttn.Tests.Support;

/// <summary>The comparer finds the faults it is there for.</summary>
[TestFixture]
internal sealed class AccuracyTests
{
    private const int Heads = 16;
    private const int Rows = 64;
    private const int Width = 16;

    private static readonly Accuracy.Limits s_limits = Accuracy.Limits.Of(ScalarType.Float32);

    [Test]
    public void ExactPasses() => Assert.That(Fault(static _ => { }), Is.Null);

    [Test]
    public void RoundingPasses() =>
        Assert.That(Fault(static values => Scale(values, 0, values.Length, 1 + 3e-7)), Is.Null);

    [Test]
    public void TwiceTheEagerErrorPassesAndMoreFails()
    {
        const double EagerError = 1e-6;
        double limit = (2 * EagerError) + s_limits.Floor;

        Assert.That(Fault(values => Scale(values, 0, values.Length, 1 + (0.99 * limit)), EagerError), Is.Null);
        Assert.That(Fault(values => Scale(values, 0, values.Length, 1 + (1.01 * limit)), EagerError), Is.Not.Null);
    }

    [Test]
    public void TheCeilingHoldsHoweverBadEagerIs() => Assert.That(
        Fault(static values => Scale(values, 0, values.Length, 1 + 2.1e-5), eagerError: 1),
        Does.Contain("allowed 2.00e-005"));

    [Test]
    public void OneHeadFailsThoughTheWholeIsFine()
    {
        // The error of the whole is a quarter of the head's, 3.3e-6, where 4.1e-6 is allowed.
        string? fault = Fault(
            static values => Scale(values, 3 * Rows * Width, Rows * Width, 1 + 1.3e-5), eagerError: 1.8e-6);

        Assert.That(fault, Does.StartWith("head"));
    }

    [Test]
    public void OneRowFailsThoughTheWholeIsFine()
    {
        // The error of the whole is 2e-5 / sqrt(1024) = 6e-7, where 1e-6 is allowed.
        string? fault = Fault(static values => Scale(values, 200 * Width, Width, 1 + 2e-5), eagerError: 2.5e-7);

        Assert.That(fault, Does.StartWith("window"));
    }

    [Test]
    public void LastRowOfZerosFails() => Assert.That(
        Fault(static values => Scale(values, values.Length - Width, Width, 0)), Is.Not.Null);

    [Test]
    public void SwappedRowsFail() => Assert.That(
        Fault(static values => values.AsSpan(0, Width).CopyTo(values.AsSpan(Width))), Is.Not.Null);

    [TestCase(double.NaN)]
    [TestCase(double.PositiveInfinity)]
    public void NotFiniteFails(double value) => Assert.That(
        Fault(values => values[77] = value, eagerError: double.PositiveInfinity), Does.Contain("at element 77"));

    [Test]
    public void NanOfTheEagerResultAllowsNothing() => Assert.That(
        Fault(static values => Scale(values, 0, values.Length, 1.001), eagerError: double.NaN), Is.Not.Null);

    [Test]
    public void AnotherSizeFails() =>
        Assert.That(Accuracy.Fault(new double[3], new double[4], 0, s_limits, 1, 1), Does.Contain("3 values"));

    [Test]
    public void ValuesWhereZerosAreExpectedFail() =>
        Assert.That(Accuracy.Fault([0, 1e-30], new double[2], 0, s_limits, 1, 2), Does.Contain("expected zeros"));

    private static string? Fault(Action<double[]> damage, double eagerError = 0)
    {
        var random = new Random(1);
        double[] expected = [.. Enumerable.Range(0, Heads * Rows * Width).Select(_ => random.NextDouble() - 0.5)];
        double[] actual = [.. expected];
        damage(actual);
        return Accuracy.Fault(actual, expected, eagerError, s_limits, Rows, Width);
    }

    private static void Scale(double[] values, int start, int count, double factor)
    {
        for (int i = start; i < start + count; i++)
        {
            values[i] *= factor;
        }
    }
}
