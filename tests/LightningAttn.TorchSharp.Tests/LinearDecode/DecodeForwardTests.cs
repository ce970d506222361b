using LightningAttn.Tests.Reference;
using LightningAttn.Tests.Support;

namespace LightningAttn.Tests.LinearDecode;

/// <summary>linear_decode_forward: output, the pool it updates, and gradients.</summary>
internal sealed class DecodeForwardTests(DeviceType deviceType) : OperatorFixture(deviceType)
{
    private const int SlotCount = 7;

    private static readonly ScalarType[] s_dtypes = [ScalarType.Float32, ScalarType.BFloat16, ScalarType.Float16];

    private static readonly long[] s_slots = [5, 0, 6, 2];

    /// <summary>How the pool lies in memory.</summary>
    internal enum Pool
    {
        Contiguous,

        /// <summary>Some slots and heads of a larger pool.</summary>
        Sliced,

        /// <summary>[slots, H, E, D] storage.</summary>
        Transposed,
    }

    [Test]
    public void OutputAndPool(
        [ValueSource(nameof(s_dtypes))] ScalarType dtype,
        [ValueSource(nameof(s_dtypes))] ScalarType cacheDtype,
        [Values] Pool pool)
    {
        Check(new DecodeCase { Dtype = dtype, CacheDtype = cacheDtype, D = 24, E = 40 }, pool);
    }

    [Test]
    public void HeadDims([Values(16, 64, 72, 128, 256)] int headDimQk, [Values(16, 40, 128, 256)] int headDimV) =>
        Check(new DecodeCase { D = headDimQk, E = headDimV, Dtype = ScalarType.BFloat16 });

    [Test]
    public void GroupedHeads([Values(1, 2, 4)] int heads) => Check(new DecodeCase { Hk = heads, Hv = 4 });

    [Test]
    public void Rates([Values(0, 1e-4, 1, 100)] double rate) => Check(new DecodeCase { Rate = rate });

    [Test]
    public void Layouts([Values] Layout layout, [ValueSource(nameof(s_dtypes))] ScalarType dtype) =>
        Check(new DecodeCase { Layout = layout, Dtype = dtype });

    [Test]
    public void SlotsOfEitherTypeAndAnyStride([Values(ScalarType.Int32, ScalarType.Int64)] ScalarType type)
    {
        var decode = new DecodeCase();
        DecodeCase.Inputs inputs = decode.Create(Device);
        Tensor expectedPool = decode.States(Device, SlotCount);
        Tensor pool = expectedPool.clone();
        Tensor expected = Call(inputs, expectedPool, Slots(s_slots));
        Tensor strided = torch.stack([Slots(s_slots), Slots([-1, -1, -1, -1])], 1).to(type).select(1, 0);
        Tensor output = Call(inputs, pool, strided);

        Assert.That(Values.Bits(output), Is.EqualTo(Values.Bits(expected)));
        Assert.That(Values.Bits(pool), Is.EqualTo(Values.Bits(expectedPool)));
    }

    [Test]
    public void PaddingRowsAreZerosAndTouchNothing([ValueSource(nameof(s_dtypes))] ScalarType dtype)
    {
        var decode = new DecodeCase { Dtype = dtype };
        DecodeCase.Inputs inputs = decode.Create(Device);
        Tensor pool = decode.States(Device, SlotCount);
        double[] before = Values.Of(pool);

        // Nothing of a padding row may be used.
        inputs.Q.select(0, 1).fill_(double.NaN);
        inputs.V.select(0, 3).fill_(double.NaN);
        double[] output = Values.Of(Call(inputs, pool, Slots([5, -1, 0, -1])));
        double[] after = Values.Of(pool);
        int row = decode.Hv * decode.E;
        int slot = decode.Hv * decode.D * decode.E;

        Assert.Multiple(() =>
        {
            Assert.That(output.Skip(row).Take(row), Is.All.Zero);
            Assert.That(output.Skip(3 * row).Take(row), Is.All.Zero);
            Assert.That(output.Take(row), Is.All.Not.NaN.And.Some.Not.Zero);
            foreach (int untouched in new[] { 1, 2, 3, 4, 6 })
            {
                Assert.That(
                    after.Skip(untouched * slot).Take(slot), Is.EqualTo(before.Skip(untouched * slot).Take(slot)));
            }

            Assert.That(after.Skip(5 * slot).Take(slot), Is.Not.EqualTo(before.Skip(5 * slot).Take(slot)));
        });
    }

    [Test]
    public void AllRowsPaddingOfAnEmptyPool([Values] bool recording)
    {
        var decode = new DecodeCase();
        DecodeCase.Inputs inputs = decode.Create(Device);
        inputs.Q.requires_grad_(recording);
        Tensor output = Call(inputs, decode.States(Device, 0), Slots([-1, -1, -1, -1]));
        if (recording)
        {
            output.sum().backward();
            Assert.That(Values.Of(inputs.Q.grad!), Is.All.Zero);
        }

        Assert.That(Values.Of(output), Is.All.Zero);
    }

    [Test]
    public void EmptyBatch()
    {
        var decode = new DecodeCase { B = 0 };
        Tensor output = Call(decode.Create(Device), decode.States(Device, SlotCount), Slots([]));

        Assert.That(output.shape, Is.EqualTo(new long[] { 0, 2 * 32 }));
    }

    [Test]
    public void TheRestOfALargerPoolIsUntouched()
    {
        var decode = new DecodeCase();
        Tensor larger = Values.Normal(15, ScalarType.Float32, Device, SlotCount + 2, 4, 34, 33);
        Tensor expected = larger.clone();
        Tensor slice = Slice(larger, decode);
        Slice(expected, decode).fill_(0);
        Call(decode.Create(Device), slice, Slots(s_slots));
        slice.fill_(0);

        Assert.That(Values.Bits(larger), Is.EqualTo(Values.Bits(expected)));
    }

    [Test]
    public void RepeatedDecodeEqualsPrefill([ValueSource(nameof(s_dtypes))] ScalarType dtype)
    {
        var attention = new AttentionCase { N = 70, Hk = 1, Dtype = dtype, BlockStates = false };
        AttentionCase.Inputs inputs = attention.Create(Device);
        (Tensor prefill, Tensor final) = attention.Call(inputs);
        Tensor pool = torch.zeros(3, 2, 32, 32, device: Device);
        pool[1].copy_(inputs.History![0]);
        pool[2].copy_(inputs.History[1]);
        var rows = new List<Tensor>();
        for (int token = 0; token < attention.N; token++)
        {
            Tensor row = Functional.linear_decode_forward(
                inputs.Q.narrow(2, token, 1),
                inputs.K.narrow(2, token, 1),
                inputs.V.narrow(2, token, 1),
                pool,
                inputs.Rates,
                Slots([1, 2]));
            rows.Add(row.reshape(2, 2, 1, 32));
        }

        (Tensor eager, _) = attention.Eager(inputs);
        Accuracy.AssertClose("output", torch.cat(rows, 2), Values.Of(prefill), eager, dtype);
        Accuracy.AssertStatesClose("state", pool.narrow(0, 1, 2), Values.Of(final), null, dtype);
    }

    [Test]
    public void GradientsWithAndWithoutPadding([ValueSource(nameof(s_dtypes))] ScalarType dtype, [Values] bool padded)
    {
        var decode = new DecodeCase { Hk = 1, Dtype = dtype, CacheDtype = ScalarType.BFloat16 };
        DecodeCase.Inputs inputs = decode.Create(Device);
        long[] slots = padded ? [5, -1, 6, 2] : s_slots;
        Tensor pool = decode.States(Device, SlotCount);
        double[] states =
        [
            .. slots.SelectMany(
                slot => slot < 0 ? new double[decode.Hv * decode.D * decode.E] : Values.Of(pool[slot])),
        ];
        if (padded)
        {
            inputs.Q.select(0, 1).fill_(0);
            inputs.K.select(0, 1).fill_(0);
            inputs.V.select(0, 1).fill_(0);
        }

        Tensor gradOutput = Values.Normal(16, dtype, Device, decode.B, decode.Hv * decode.E);
        double[] weight = Values.Of(gradOutput);
        TokenRecurrence.Gradients expected =
            TokenRecurrence.Backward(decode.ReferenceProblem(inputs, states), Masked(weight), null);
        (DecodeCase.Inputs eager, _) = decode.EagerGradients(
            inputs,
            torch.tensor(states, dtype: ScalarType.Float32).reshape(decode.B, decode.Hv, decode.D, decode.E).to(Device),
            torch.tensor(Masked(weight)).reshape(gradOutput.shape).to(Device).to(dtype),
            gradState: null);
        if (padded)
        {
            // A padding row may hold anything.
            inputs.Q.select(0, 1).fill_(double.NaN);
            pool[0].fill_(double.NaN);
        }

        DecodeCase.Inputs leaves = new(Leaf(inputs.Q), Leaf(inputs.K), Leaf(inputs.V), Leaf(inputs.Rates));
        Call(leaves, pool, Slots(slots)).backward([gradOutput]);

        Accuracy.AssertClose("dq", leaves.Q.grad!, expected.Q, eager.Q.grad, dtype);
        Accuracy.AssertClose("dk", leaves.K.grad!, expected.K, eager.K.grad, dtype);
        Accuracy.AssertClose("dv", leaves.V.grad!, expected.V, eager.V.grad, dtype);
        Accuracy.AssertSumsClose("dslope_rate", leaves.Rates.grad!, expected.Rates, eager.Rates.grad, dtype);

        double[] Masked(double[] values) =>
            [.. values.Select((value, i) => slots[i / (decode.Hv * decode.E)] < 0 ? 0 : value)];
    }

    [Test]
    public void GradientsUseTheStatesBeforeTheCall()
    {
        // The pool has moved on by the time of the backward pass.
        var decode = new DecodeCase();
        DecodeCase.Inputs inputs = decode.Create(Device);
        Tensor pool = decode.States(Device, SlotCount);
        Tensor first = Gradient(pool.clone(), moveOn: false);
        Tensor second = Gradient(pool.clone(), moveOn: true);

        Assert.That(Values.Bits(second), Is.EqualTo(Values.Bits(first)));

        Tensor Gradient(Tensor states, bool moveOn)
        {
            Tensor q = Leaf(inputs.Q);
            Tensor output = Call(inputs with { Q = q }, states, Slots(s_slots));
            if (moveOn)
            {
                Call(inputs, states, Slots(s_slots));
            }

            output.sum().backward();
            return q.grad!;
        }
    }

    [Test]
    public void OutOfRangeSlotsAreErrorsOnTheCpuAndPaddingOnCuda()
    {
        var decode = new DecodeCase();
        DecodeCase.Inputs inputs = decode.Create(Device);
        Tensor pool = decode.States(Device, SlotCount);
        byte[] before = Values.Bits(pool);
        Tensor slots = Slots([SlotCount, -2, long.MaxValue, -1]);
        if (IsCuda)
        {
            Assert.That(Values.Of(Call(inputs, pool, slots)), Is.All.Zero);
        }
        else
        {
            Assert.That(
                () => Call(inputs, pool, slots),
                Throws.ArgumentException.With.Message.Contains("slot_idx is 7 for row 0, expected 0 to 6"));
        }

        Assert.That(Values.Bits(pool), Is.EqualTo(before));
    }

    [Test]
    public void TheDebugSwitchReportsSlotsOnEveryDevice()
    {
        var decode = new DecodeCase();
        AppContext.SetSwitch(SlotDebugging.SwitchName, true);
        try
        {
            Assert.That(
                () => Call(decode.Create(Device), decode.States(Device, SlotCount), Slots([0, 1, 7, 2])),
                Throws.ArgumentException.With.Message.Contains("slot_idx is 7 for row 2"));
        }
        finally
        {
            AppContext.SetSwitch(SlotDebugging.SwitchName, false);
        }
    }

    [Test]
    public void ACacheThatRequiresAGradientIsRefused()
    {
        var decode = new DecodeCase();
        DecodeCase.Inputs inputs = decode.Create(Device);
        Tensor pool = decode.States(Device, SlotCount).requires_grad_(true);
        Assert.That(
            () => Call(inputs, pool, Slots(s_slots)),
            Throws.InvalidOperationException.With.Message.Contains("linear_decode_step"));

        using (torch.no_grad())
        {
            Assert.That(() => Call(inputs, pool, Slots(s_slots)), Throws.Nothing);
        }
    }

    private static Tensor Call(DecodeCase.Inputs inputs, Tensor pool, Tensor slots) =>
        Functional.linear_decode_forward(inputs.Q, inputs.K, inputs.V, pool, inputs.Rates, slots);

    private static Tensor Leaf(Tensor tensor) => tensor.detach().clone().requires_grad_(true);

    private static Tensor Slice(Tensor larger, DecodeCase decode) =>
        larger.narrow(0, 1, SlotCount).narrow(1, 1, decode.Hv).narrow(2, 1, decode.D).narrow(3, 1, decode.E);

    private Tensor Slots(long[] slots) => torch.tensor(slots, dtype: ScalarType.Int64).to(Device);

    private void Check(DecodeCase decode, Pool layout = Pool.Contiguous)
    {
        DecodeCase.Inputs inputs = decode.Create(Device);
        Tensor pool = Lay(decode.States(Device, SlotCount), layout);
        double[] states = [.. s_slots.SelectMany(slot => Values.Of(pool[slot]))];
        TokenRecurrence.Result expected = TokenRecurrence.Forward(decode.ReferenceProblem(inputs, states));
        Tensor output = Call(inputs, pool, Slots(s_slots));

        Assert.That(output.shape, Is.EqualTo(new long[] { decode.B, decode.Hv * decode.E }));
        Assert.That(output.dtype, Is.EqualTo(decode.Dtype));
        Accuracy.AssertClose("output", output, expected.Output, null, decode.Dtype, decode.ToString());
        Tensor updated = pool.index_select(0, Slots(s_slots));
        Accuracy.AssertClose("state", updated, decode.NewStates(expected), null, decode.CacheDtype, decode.ToString());

        Tensor Lay(Tensor values, Pool kind)
        {
            if (kind == Pool.Transposed)
            {
                return values.transpose(2, 3).contiguous().transpose(2, 3);
            }

            if (kind == Pool.Contiguous)
            {
                return values;
            }

            long[] larger = [SlotCount + 2, decode.Hv + 2, decode.D + 2, decode.E + 1];
            Tensor slice = Slice(torch.full(larger, double.NaN, values.dtype, Device), decode);
            slice.copy_(values);
            return slice;
        }
    }
}
