using LightningAttn.Interop;
using LightningAttn.Tests.Support;

namespace LightningAttn.Tests.LightningAttention;

/// <summary>Every path of the forward pass against the truth, whatever the automatic choice is.</summary>
internal sealed class CudaPathTests(DeviceType deviceType) : OperatorFixture(deviceType)
{
    private static readonly CudaPath[] s_paths = Enum.GetValues<CudaPath>();

    private static readonly ScalarType[] s_dtypes = [ScalarType.BFloat16, ScalarType.Float16];

    [TearDown]
    public void ChooseAutomatically() => Kernels.CudaPath = CudaPath.Automatic;

    [Test]
    public void ForwardIsRight(
        [ValueSource(nameof(s_paths))] CudaPath path, [ValueSource(nameof(s_dtypes))] ScalarType dtype)
    {
        Take(path, dtype);
        foreach ((int n, int d, int e) in new[] { (1, 64, 64), (200, 128, 128), (333, 96, 72), (130, 256, 192) })
        {
            new AttentionCase { N = n, D = d, E = e, Dtype = dtype, Hk = 1 }.CheckForward(Device);
            new AttentionCase { N = n, D = d, E = e, Dtype = dtype, History = false, BlockStates = false, Scale = 0.5 }
                .CheckForward(Device);
        }
    }

    [Test]
    public void GradientsAreRight([ValueSource(nameof(s_paths))] CudaPath path)
    {
        Take(path, ScalarType.BFloat16);
        new AttentionCase { N = 150, D = 64, E = 64, Dtype = ScalarType.BFloat16 }.CheckBackward(Device);
    }

    [Test]
    public void SegmentsGiveTheSameBitsInAnyBatchAndWhenTheCallIsSplit(
        [ValueSource(nameof(s_paths))] CudaPath path, [ValueSource(nameof(s_dtypes))] ScalarType dtype)
    {
        const int SegmentTokens = 2048; // kSegmentTokens of the native library
        Take(path, dtype);
        var attention = new AttentionCase
        {
            B = IsCuda ? 70 : 2, N = SegmentTokens + 100, D = 64, E = 64, Dtype = dtype, BlockStates = false,
        };
        AttentionCase.Inputs inputs = attention.Create(Device);
        (Tensor output, Tensor state) = attention.Call(inputs);
        AttentionCase.Inputs alone = Part(inputs, 0, attention.N, inputs.History!.narrow(0, 1, 1));
        (Tensor aloneOutput, Tensor aloneState) = attention.Call(alone);
        (Tensor head, Tensor carried) = attention.Call(Part(inputs, 0, SegmentTokens, alone.History!));
        (Tensor tail, Tensor final) = attention.Call(Part(inputs, SegmentTokens, 100, carried.squeeze(2)));

        Assert.Multiple(() =>
        {
            Assert.That(Values.Bits(aloneOutput), Is.EqualTo(Values.Bits(output.narrow(0, 1, 1))), "output");
            Assert.That(Values.Bits(aloneState), Is.EqualTo(Values.Bits(state.narrow(0, 1, 1))), "state");
            Assert.That(Values.Bits(torch.cat([head, tail], 2)), Is.EqualTo(Values.Bits(aloneOutput)), "split output");
            Assert.That(Values.Bits(final), Is.EqualTo(Values.Bits(aloneState)), "split state");
        });

        static AttentionCase.Inputs Part(AttentionCase.Inputs inputs, int start, int count, Tensor history) => new(
            inputs.Q.narrow(0, 1, 1).narrow(2, start, count),
            inputs.K.narrow(0, 1, 1).narrow(2, start, count),
            inputs.V.narrow(0, 1, 1).narrow(2, start, count),
            inputs.Rates,
            history);
    }

    [Test]
    public void AThreadsPathIsItsOwn()
    {
        Kernels.CudaPath = CudaPath.General;
        CudaPath other = CudaPath.Hopper;
        var thread = new Thread(() => other = Kernels.CudaPath);
        thread.Start();
        thread.Join();

        Assert.That(other, Is.EqualTo(CudaPath.Automatic));
    }

    /// <summary>Skips the test where the device has no kernel for the path, and on the CPU after the first.</summary>
    private void Take(CudaPath path, ScalarType dtype)
    {
        if (!IsCuda && path != CudaPath.Automatic)
        {
            Assert.Ignore("the CPU has one path");
        }

        Kernels.CudaPath = path;
        try
        {
            Native.Describe(Operation.Forward, dtype, Device, 64, 64);
        }
        catch (NotSupportedException error) when (path == CudaPath.Hopper)
        {
            Assert.Ignore(error.Message);
        }
    }
}
