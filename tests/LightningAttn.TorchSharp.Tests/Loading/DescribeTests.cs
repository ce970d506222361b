using LightningAttn.Tests.Support;

namespace LightningAttn.Tests.Loading;

/// <summary>Native.Describe: every combination that is documented has a kernel, and what has none is told.</summary>
internal sealed class DescribeTests(DeviceType deviceType) : OperatorFixture(deviceType)
{
    [Test]
    public void EveryDocumentedCombinationHasAKernel([Values] Operation operation)
    {
        foreach (ScalarType dtype in new[] { ScalarType.Float32, ScalarType.BFloat16, ScalarType.Float16 })
        {
            for (long headDim = 16; headDim <= 256; headDim += 8)
            {
                Assert.That(Native.Describe(operation, dtype, Device, headDim, 272 - headDim), Is.Not.Empty);
            }
        }
    }

    [Test]
    public void Float64IsOfTheCpuAlone()
    {
        if (IsCuda)
        {
            Assert.That(
                () => Native.Describe(Operation.Forward, ScalarType.Float64, Device, 64, 64),
                Throws.TypeOf<NotSupportedException>());
        }
        else
        {
            Assert.That(Native.Describe(Operation.Forward, ScalarType.Float64, Device, 64, 64), Is.Not.Empty);
        }
    }

    [Test]
    public void AnIntegerTypeIsRefused() => Assert.That(
        () => Native.Describe(Operation.Forward, ScalarType.Int32, Device, 64, 64),
        Throws.ArgumentException.With.Message.Contains("int32"));
}
