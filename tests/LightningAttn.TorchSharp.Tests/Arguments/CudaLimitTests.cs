using LightningAttn.Tests.Support;

namespace LightningAttn.Tests.Arguments;

/// <summary>What the GPU path does not have is named with the limit.</summary>
[TestFixture]
[Category(TestDevices.CudaCategory)]
internal sealed class CudaLimitTests
{
    private DisposeScope? _scope;

    [OneTimeSetUp]
    public void RequireDevice() => TestDevices.Require(DeviceType.CUDA);

    [SetUp]
    public void OpenScope() => _scope = torch.NewDisposeScope();

    [TearDown]
    public void CloseScope() => _scope?.Dispose();

    [TestCase(8, 64, "q is float32 [1, 1, 3, 8] on cuda:0: D = 8 is not supported on CUDA")]
    [TestCase(20, 64, "D = 20")]
    [TestCase(264, 64, "D = 264")]
    [TestCase(64, 8, "v is float32 [1, 1, 3, 8] on cuda:0: E = 8")]
    [TestCase(64, 257, "E = 257")]
    public void HeadDims(long headDimQk, long headDimV, string message)
    {
        Assert.That(
            () => Call(ScalarType.Float32, headDimQk, headDimV),
            Throws.TypeOf<NotSupportedException>().With.Message.Contains(message)
                .And.Message.Contains("multiples of 8 from 16 to 256 are"));
    }

    [Test]
    public void Float64() => Assert.That(
        () => Call(ScalarType.Float64, 64, 64),
        Throws.TypeOf<NotSupportedException>().With.Message.Contains("float64 is supported on the CPU alone"));

    [Test]
    public void DevicesMustNotBeMixed()
    {
        Tensor q = torch.zeros(1, 1, 3, 64, device: torch.CUDA);

        Assert.That(
            () => Functional.lightning_attention(q, q, torch.zeros(1, 1, 3, 64), torch.zeros(1)),
            Throws.ArgumentException.With.Message.Contains(
                "v is float32 [1, 1, 3, 64] on cpu, expected the device of q, cuda:0"));
        Assert.That(
            () => Functional.lightning_attention(q, q, q, torch.zeros(1)),
            Throws.ArgumentException.With.Property(nameof(ArgumentException.ParamName)).EqualTo("ed"));
    }

    private static void Call(ScalarType dtype, long headDimQk, long headDimV)
    {
        Tensor q = torch.zeros(1, 1, 3, headDimQk, dtype: dtype, device: torch.CUDA);
        Tensor v = torch.zeros(1, 1, 3, headDimV, dtype: dtype, device: torch.CUDA);
        Functional.lightning_attention(q, q, v, torch.zeros(1, device: torch.CUDA));
    }
}
