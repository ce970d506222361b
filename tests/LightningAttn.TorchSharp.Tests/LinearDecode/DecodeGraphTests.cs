using LightningAttn.Tests.Support;

namespace LightningAttn.Tests.LinearDecode;

/// <summary>Decoding as a CUDA graph.</summary>
[TestFixture]
[Category(TestDevices.CudaCategory)]
internal sealed class DecodeGraphTests
{
    private const int SlotCount = 7;
    private const int Steps = 4;

    [OneTimeSetUp]
    public void RequireCuda() => TestDevices.Require(DeviceType.CUDA);

    [Test]
    public void ReplayedStepsAreTheStepsOneByOne(
        [Values(ScalarType.Float32, ScalarType.BFloat16)] ScalarType cacheType, [Values(1, 64)] int batch)
    {
        using var scope = torch.NewDisposeScope();
        Device device = torch.device(DeviceType.CUDA);
        var decode = new DecodeCase { B = batch, Dtype = ScalarType.BFloat16, CacheDtype = cacheType, D = 128, E = 128 };
        DecodeCase.Inputs inputs = decode.Create(device);
        Tensor expectedPool = decode.States(device, batch + SlotCount);
        Tensor pool = expectedPool.clone();
        Tensor slots = torch.arange(batch, dtype: ScalarType.Int32).to(device);
        Tensor expected = torch.zeros([batch, decode.Hv * decode.E], ScalarType.BFloat16, device);
        Tensor output = torch.zeros_like(expected);
        for (int step = 0; step < Steps; step++)
        {
            Step(expectedPool, expected);
        }

        Native.Synchronize(device);
        using (var graph = new CudaGraph(device, () => Step(pool, output)))
        {
            for (int step = 0; step < Steps; step++)
            {
                graph.Replay();
            }
        }

        Assert.That(Values.Bits(output), Is.EqualTo(Values.Bits(expected)));
        Assert.That(Values.Bits(pool), Is.EqualTo(Values.Bits(expectedPool)));
        Native.Synchronize(device);

        void Step(Tensor states, Tensor into) =>
            Functional.linear_decode_forward(inputs.Q, inputs.K, inputs.V, states, inputs.Rates, slots, into);
    }
}
