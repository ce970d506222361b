using LightningAttn.Tests.Support;

namespace LightningAttn.Tests.LinearDecode;

/// <summary>linear_decode_forward into a given output.</summary>
internal sealed class DecodeIntoTests(DeviceType deviceType) : OperatorFixture(deviceType)
{
    private const int SlotCount = 7;

    private static readonly ScalarType[] s_dtypes = [ScalarType.Float32, ScalarType.BFloat16, ScalarType.Float16];

    [Test]
    public void TheSameBitsAsIntoANewTensor([ValueSource(nameof(s_dtypes))] ScalarType dtype, [Values] Layout layout)
    {
        var decode = new DecodeCase { Dtype = dtype, Layout = layout };
        DecodeCase.Inputs inputs = decode.Create(Device);
        Tensor expectedPool = decode.States(Device, SlotCount);
        Tensor pool = expectedPool.clone();
        Tensor slots = Slots([5, -1, 0, 2]);
        Tensor expected = Functional.linear_decode_forward(
            inputs.Q, inputs.K, inputs.V, expectedPool, inputs.Rates, slots);

        // Rows of a larger tensor, whose rest must stay as it is.
        Tensor larger = torch.full([decode.B, expected.size(1) + 8], 3, dtype, Device);
        Tensor output = larger.narrow(1, 0, expected.size(1));
        Tensor returned = Functional.linear_decode_forward(
            inputs.Q, inputs.K, inputs.V, pool, inputs.Rates, slots, output);

        Assert.That(returned, Is.SameAs(output));
        Assert.That(Values.Bits(output.contiguous()), Is.EqualTo(Values.Bits(expected)));
        Assert.That(Values.Bits(pool), Is.EqualTo(Values.Bits(expectedPool)));
        Assert.That(Values.Of(larger.narrow(1, expected.size(1), 8)), Is.All.EqualTo(3));
    }

    [Test]
    public void ALoopAllocatesNothing()
    {
        const int Steps = 100;
        var decode = new DecodeCase();
        DecodeCase.Inputs inputs = decode.Create(Device);
        Tensor pool = decode.States(Device, SlotCount);
        Tensor slots = Slots([5, -1, 0, 2]);
        Tensor output = torch.empty([decode.B, decode.Hv * decode.E], device: Device);
        Step(); // what happens once
        long tensors = Tensor.TotalCount;
        long before = GC.GetAllocatedBytesForCurrentThread();
        for (int step = 0; step < Steps; step++)
        {
            Step();
        }

        Assert.That(GC.GetAllocatedBytesForCurrentThread() - before, Is.Zero);
        Assert.That(Tensor.TotalCount - tensors, Is.Zero);

        void Step() =>
            Functional.linear_decode_forward(inputs.Q, inputs.K, inputs.V, pool, inputs.Rates, slots, output);
    }

    [Test]
    public void ConvertedArgumentsAreDisposed()
    {
        var decode = new DecodeCase { Layout = Layout.Contiguous };
        DecodeCase.Inputs inputs = decode.Create(Device);
        Tensor pool = decode.States(Device, SlotCount);
        Tensor rates = inputs.Rates.reshape(1, -1, 1, 1);
        Tensor strided = torch.stack([inputs.Q, inputs.Q], -1).select(-1, 0);
        Tensor slots = torch.stack([Slots([5, 1, 0, 2]), Slots([5, 1, 0, 2])], 1).select(1, 0);
        Tensor output = torch.empty([decode.B, decode.Hv * decode.E], device: Device);
        long tensors = Tensor.TotalCount;
        Functional.linear_decode_forward(strided, inputs.K, inputs.V, pool, rates, slots, output);

        Assert.That(Tensor.TotalCount - tensors, Is.Zero);
    }

    [Test]
    public void AnEmptyBatch()
    {
        var decode = new DecodeCase { B = 0 };
        DecodeCase.Inputs inputs = decode.Create(Device);
        Tensor output = torch.empty([0, decode.Hv * decode.E], device: Device);

        Assert.That(
            Functional.linear_decode_forward(
                inputs.Q, inputs.K, inputs.V, decode.States(Device, 2), inputs.Rates, Slots([]), output),
            Is.SameAs(output));
    }

    [Test]
    public void WhatRequiresAGradientIsRefusedWhileRecording()
    {
        var decode = new DecodeCase();
        DecodeCase.Inputs inputs = decode.Create(Device);
        Tensor pool = decode.States(Device, SlotCount);
        Tensor output = torch.empty([decode.B, decode.Hv * decode.E], device: Device);
        Tensor slots = Slots([5, 1, 0, 2]);
        foreach (Tensor argument in new[] { inputs.Q, inputs.K, inputs.V, inputs.Rates, output })
        {
            argument.requires_grad = true;
            Assert.That(Call, Throws.InvalidOperationException.With.Message.Contains("not recorded"));
            using (torch.no_grad())
            {
                Assert.That(Call, Throws.Nothing);
            }

            argument.requires_grad = false;
        }

        void Call() =>
            Functional.linear_decode_forward(inputs.Q, inputs.K, inputs.V, pool, inputs.Rates, slots, output);
    }

    [Test]
    public void AWrongOutputIsNamed()
    {
        var decode = new DecodeCase();
        DecodeCase.Inputs inputs = decode.Create(Device);
        long row = decode.Hv * decode.E;
        Reject(torch.empty([decode.B + 1, row], device: Device), $"expected [B, Hv * E] = [{decode.B}, {row}]");
        Reject(torch.empty([decode.B, 1, row], device: Device), $"expected [B, Hv * E] = [{decode.B}, {row}]");
        Reject(torch.empty([decode.B, row], ScalarType.BFloat16, Device), "expected the type of q, float32");
        Reject(torch.empty([row, decode.B], device: Device).t(), "expected rows without gaps");
        Reject(torch.empty([1, row], device: Device).expand(decode.B, row), "stride 0 on axis 0");
        Reject(torch.empty([decode.B, row], device: torch.device("meta")), "expected the device of v");

        void Reject(Tensor output, string message) =>
            Assert.That(
                () => Functional.linear_decode_forward(
                    inputs.Q, inputs.K, inputs.V, decode.States(Device, SlotCount), inputs.Rates,
                    Slots([0, 1, 2, 3]), output),
                Throws.ArgumentException.With.Message.Contains("output is").And.Message.Contains(message));
    }

    private Tensor Slots(long[] slots) => torch.tensor(slots, dtype: ScalarType.Int64).to(Device);
}
