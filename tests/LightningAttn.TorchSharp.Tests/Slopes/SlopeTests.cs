using LightningAttn.Tests.Support;

namespace LightningAttn.Tests.Slopes;

/// <summary>build_slope_tensor against values worked out by hand.</summary>
[TestFixture]
internal sealed class SlopeTests
{
    private static readonly (long Heads, double[] Slopes)[] s_byHand =
    [
        (1, [1.0 / 256]),
        (2, [1.0 / 16, 1.0 / 256]),
        (3, [1.0 / 16, 1.0 / 256, 1.0 / 4]),
        (4, [1.0 / 4, 1.0 / 16, 1.0 / 64, 1.0 / 256]),
        (6, [1.0 / 4, 1.0 / 16, 1.0 / 64, 1.0 / 256, 1.0 / 2, 1.0 / 8]),
        (8, [1.0 / 2, 1.0 / 4, 1.0 / 8, 1.0 / 16, 1.0 / 32, 1.0 / 64, 1.0 / 128, 1.0 / 256]),
    ];

    [Test]
    public void ByHand([ValueSource(nameof(s_byHand))] (long Heads, double[] Slopes) expected)
    {
        using Tensor slopes = Functional.build_slope_tensor(expected.Heads);

        Assert.That(slopes.dtype, Is.EqualTo(ScalarType.Float32));
        Assert.That(slopes.shape, Is.EqualTo(new[] { expected.Heads }));
        Assert.That(Values.Of(slopes), Is.EqualTo(expected.Slopes));
    }

    [Test]
    public void TwelveHeadsInterleaveTheSlopesOfSixteen()
    {
        using Tensor slopes = Functional.build_slope_tensor(12);
        double[] expected =
        [
            .. Enumerable.Range(1, 8).Select(static i => Math.Pow(2, -i)),
            .. new[] { -0.5, -1.5, -2.5, -3.5 }.Select(static exponent => Math.Pow(2, exponent)),
        ];

        Assert.That(Values.Of(slopes), Is.EqualTo(expected).Within(1e-7));
    }

    [TestCase(0, 1.00001)]
    [TestCase(1, 0.75001)]
    [TestCase(4, 0.00001)]
    public void LayerFactor(long layer, double factor)
    {
        using Tensor slopes = Functional.build_slope_tensor(2, layer, 5);

        Assert.That(Values.Of(slopes), Is.EqualTo(new[] { factor / 16, factor / 256 }).Within(1e-9));
    }

    [Test]
    public void OneLayer()
    {
        using Tensor slopes = Functional.build_slope_tensor(2, 0, 1);

        Assert.That(Values.Of(slopes), Is.EqualTo(new[] { 1.00001 / 16, 1.00001 / 256 }).Within(1e-8));
    }

    [TestCase(0, 0, 1, "num_heads")]
    [TestCase(2, 0, 0, "num_layers")]
    [TestCase(2, -1, 3, "layer_idx")]
    [TestCase(2, 3, 3, "layer_idx")]
    public void BadArguments(long heads, long layer, long layers, string name)
    {
        Assert.That(
            () => Functional.build_slope_tensor(heads, layer, layers),
            Throws.ArgumentException.With.Property(nameof(ArgumentException.ParamName)).EqualTo(name));
    }
}
