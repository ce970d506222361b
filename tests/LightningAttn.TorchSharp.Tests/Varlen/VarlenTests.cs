using LightningAttn.Tests.Reference;
using LightningAttn.Tests.Support;

namespace LightningAttn.Tests.Varlen;

/// <summary>lightning_attention_varlen: every sequence as it would be alone, and the states in its pool.</summary>
internal sealed class VarlenTests(DeviceType deviceType) : OperatorFixture(deviceType)
{
    private static readonly ScalarType[] s_dtypes = [ScalarType.Float32, ScalarType.BFloat16, ScalarType.Float16];

    [Test]
    public void EverySequenceIsBitwiseAsAlone(
        [ValueSource(nameof(s_dtypes))] ScalarType dtype,
        [Values(ScalarType.Int32, ScalarType.Int64)] ScalarType indexDtype)
    {
        var packed = new PackedCase { Dtype = dtype, IndexDtype = indexDtype, Padding = (3, 70) };
        PackedCase.Inputs inputs = packed.Create(Device);
        Tensor output = packed.Call(inputs);

        Assert.That(output.shape, Is.EqualTo(new[] { packed.Tokens, packed.Hv, packed.E }));
        Assert.That(output.dtype, Is.EqualTo(dtype));
        for (int i = 0; i < packed.Count; i++)
        {
            Assert.That(
                Values.Bits(packed.Rows(output, i)), Is.EqualTo(Values.Bits(packed.Alone(inputs, i).Output)), $"{i}");
        }

        Assert.That(Values.Of(output.narrow(0, 0, 3)), Is.All.EqualTo(0));
        Assert.That(Values.Of(output.narrow(0, packed.Tokens - 70, 70)), Is.All.EqualTo(0));
    }

    [Test]
    public void TheTruth([ValueSource(nameof(s_dtypes))] ScalarType dtype)
    {
        var packed = new PackedCase { Dtype = dtype, Lengths = [63, 200, 0, 2] };
        PackedCase.Inputs inputs = packed.Create(Device);
        Tensor output = packed.Call(inputs);
        foreach (int i in new[] { 0, 1, 3 })
        {
            TokenRecurrence.Problem problem = packed.ReferenceProblem(inputs, i);
            (Tensor eager, _) = EagerAttention.Attend(
                packed.Batch(inputs.Q, i), packed.Batch(inputs.K, i), packed.Batch(inputs.V, i), inputs.Rates,
                history: null, blockSize: 64, packed.Scale);
            Accuracy.AssertClose(
                "output", packed.Batch(output, i), TokenRecurrence.Forward(problem).Output, eager, dtype, $"{i}");
        }
    }

    [Test]
    public void ThePoolHoldsTheStates(
        [ValueSource(nameof(s_dtypes))] ScalarType dtype, [ValueSource(nameof(s_dtypes))] ScalarType poolDtype)
    {
        var packed = new PackedCase { Dtype = dtype };
        PackedCase.Inputs inputs = packed.Create(Device);
        // A layer's part of a larger pool, with E and D exchanged in memory.
        Tensor pool = Values.Normal(22, poolDtype, Device, 9, 3, packed.Hv, packed.E, packed.D)
            .select(1, 1).transpose(2, 3);
        Tensor before = pool.clone();
        long[] slots = [7, 3, -1, 0, 5];
        bool[] hasInitial = [true, false, true, false, true];
        Tensor output = packed.Call(
            inputs, pool, torch.tensor(slots, dtype: packed.IndexDtype).to(Device), torch.tensor(hasInitial).to(Device));

        for (int i = 0; i < packed.Count; i++)
        {
            if (slots[i] < 0)
            {
                Assert.That(Values.Of(packed.Rows(output, i)), Is.All.EqualTo(0));
                continue;
            }

            Tensor? history = hasInitial[i] ? before.select(0, slots[i]).to(ScalarType.Float32) : null;
            (Tensor alone, Tensor state) = packed.Alone(inputs, i, history);
            Assert.That(Values.Bits(packed.Rows(output, i)), Is.EqualTo(Values.Bits(alone)), $"output {i}");
            Assert.That(
                Values.Bits(pool.select(0, slots[i])), Is.EqualTo(Values.Bits(state.to(poolDtype))), $"state {i}");
        }

        foreach (int untouched in new[] { 1, 2, 4, 6, 8 })
        {
            Assert.That(Values.Bits(pool.select(0, untouched)), Is.EqualTo(Values.Bits(before.select(0, untouched))));
        }
    }

    [Test]
    public void WithoutIndicesEverySequenceHasTheSlotOfItsNumber()
    {
        var packed = new PackedCase();
        PackedCase.Inputs inputs = packed.Create(Device);
        Tensor pool = Values.Normal(22, ScalarType.Float32, Device, packed.Count + 1, packed.Hv, packed.D, packed.E);
        Tensor indexed = pool.clone();
        Tensor output = packed.Call(inputs, pool);
        Tensor expected = packed.Call(inputs, indexed, torch.arange(packed.Count, dtype: ScalarType.Int32, device: Device));

        Assert.That(Values.Bits(output), Is.EqualTo(Values.Bits(expected)));
        Assert.That(Values.Bits(pool), Is.EqualTo(Values.Bits(indexed)));
    }

    /// <summary>Two prompts in pieces of 64 tokens: the bits of one call.</summary>
    [Test]
    public void ChunkedPrefillThroughThePool([ValueSource(nameof(s_dtypes))] ScalarType dtype)
    {
        // The tokens at whose multiples a split changes no bit.
        int unit = IsCuda && dtype.ElementSize() == 2 ? 2048 : 64;
        var whole = new PackedCase { Dtype = dtype, Lengths = [3 * unit, (2 * unit) + 22] };
        PackedCase.Inputs inputs = whole.Create(Device);
        Tensor expectedPool = torch.full([3, whole.Hv, whole.D, whole.E], double.NaN, device: Device);
        Tensor pool = expectedPool.clone();
        Tensor slots = torch.tensor(new[] { 2L, 0 }).to(Device);
        Tensor expected = whole.Call(inputs, expectedPool, slots, Flags(false, false));

        var outputs = new List<Tensor>[] { [], [] };
        for (int done = 0; done < 3 * unit; done += unit)
        {
            long[] lengths = [unit, Math.Min(unit, whole.Lengths[1] - done)];
            PackedCase piece = whole with { Lengths = lengths };
            Tensor output = piece.Call(
                new PackedCase.Inputs(
                    Piece(inputs.Q), Piece(inputs.K), Piece(inputs.V), inputs.Rates,
                    torch.tensor(new[] { 0, unit, unit + lengths[1] }).to(Device)),
                pool,
                slots,
                Flags(done > 0, done > 0));
            outputs[0].Add(piece.Rows(output, 0));
            outputs[1].Add(piece.Rows(output, 1));

            Tensor Piece(Tensor packed) =>
                torch.cat(
                    [packed.narrow(0, done, unit), packed.narrow(0, whole.Lengths[0] + done, lengths[1])], 0);
        }

        Tensor joined = torch.cat([.. outputs[0], .. outputs[1]], 0);
        if (IsCuda && dtype != ScalarType.Float32)
        {
            // The Hopper kernels keep the bits at multiples of 2048 tokens.
            Accuracy.AssertClose("output", joined, Values.Of(expected), null, dtype);
            AssertStates(static (actual, state, dtype) =>
                Accuracy.AssertStatesClose("state", actual, Values.Of(state), null, dtype));
            return;
        }

        Assert.That(Values.Bits(joined), Is.EqualTo(Values.Bits(expected)));
        AssertStates(static (actual, state, _) => Assert.That(Values.Bits(actual), Is.EqualTo(Values.Bits(state))));

        void AssertStates(Action<Tensor, Tensor, ScalarType> compare)
        {
            compare(pool.select(0, 2), expectedPool.select(0, 2), dtype);
            compare(pool.select(0, 0), expectedPool.select(0, 0), dtype);
        }
    }

    [Test]
    public void DecodingGoesOnFromThePool()
    {
        var packed = new PackedCase { Lengths = [71, 31], Scale = 1 };
        PackedCase.Inputs inputs = packed.Create(Device);
        Tensor pool = torch.zeros([2, packed.Hv, packed.D, packed.E], device: Device);
        Tensor slots = torch.tensor(new[] { 1L, 0 }).to(Device);
        Tensor expected = packed.Call(inputs);
        PackedCase prompts = packed with { Lengths = [70, 30] };
        Tensor last = torch.tensor(new[] { 70L, 101 }).to(Device);
        Tensor rest = torch.cat([torch.arange(70), torch.arange(71, 101)]).to(Device);
        prompts.Call(
            new PackedCase.Inputs(
                inputs.Q.index_select(0, rest), inputs.K.index_select(0, rest), inputs.V.index_select(0, rest),
                inputs.Rates, torch.tensor(new[] { 0L, 70, 100 }).to(Device)),
            pool,
            slots);
        Tensor decoded = Functional.linear_decode_forward(
            Token(inputs.Q), Token(inputs.K), Token(inputs.V), pool, inputs.Rates, slots);

        Accuracy.AssertClose(
            "decoded", decoded, Values.Of(expected.index_select(0, last)), null, ScalarType.Float32);

        Tensor Token(Tensor tensor) => tensor.index_select(0, last).unsqueeze(2);
    }

    [Test]
    public void EveryViewIsRead()
    {
        var packed = new PackedCase();
        PackedCase.Inputs inputs = packed.Create(Device);
        byte[] expected = Values.Bits(packed.Call(inputs));
        foreach (Func<Tensor, Tensor> view in new Func<Tensor, Tensor>[]
        {
            static tensor => tensor.contiguous(),
            static tensor => tensor.transpose(0, 1).contiguous().transpose(0, 1),
            static tensor => tensor.transpose(1, 2).contiguous().transpose(1, 2),
            static tensor => torch.nn.functional.pad(tensor, [1, 2, 1, 1]).narrow(2, 1, tensor.size(2))
                .narrow(1, 1, tensor.size(1)),
        })
        {
            var viewed = new PackedCase.Inputs(
                view(inputs.Q), view(inputs.K), view(inputs.V), inputs.Rates,
                torch.stack([inputs.Offsets, inputs.Offsets], 1).select(1, 0));
            Assert.That(Values.Bits(packed.Call(viewed)), Is.EqualTo(expected));
        }
    }

    [Test]
    public void NothingAtAll([Values(0, 3)] int sequences, [Values(0, 5)] int padding)
    {
        var packed = new PackedCase { Lengths = new long[sequences], Padding = (0, padding) };
        PackedCase.Inputs inputs = packed.Create(Device);
        Tensor pool = Values.Normal(22, ScalarType.Float32, Device, 4, packed.Hv, packed.D, packed.E);
        Tensor before = pool.clone();
        Tensor output = packed.Call(inputs, pool);

        Assert.That(output.shape, Is.EqualTo(new long[] { padding, packed.Hv, packed.E }));
        Assert.That(Values.Of(output), Is.All.EqualTo(0));
        Assert.That(Values.Bits(pool), Is.EqualTo(Values.Bits(before)));

        // Of sequences that start from zeros and stay empty, zeros are what is left.
        packed.Call(inputs, pool, hasInitial: torch.zeros(sequences, dtype: ScalarType.Bool, device: Device));
        Assert.That(Values.Of(pool.narrow(0, 0, sequences)), Is.All.EqualTo(0));
        Assert.That(Values.Bits(pool.narrow(0, 3, 1)), Is.EqualTo(Values.Bits(before.narrow(0, 3, 1))));
    }

    [Test]
    public void NothingIsLeftBehind()
    {
        var packed = new PackedCase();
        PackedCase.Inputs inputs = packed.Create(Device);
        Tensor pool = torch.zeros([packed.Count, packed.Hv, packed.D, packed.E], device: Device);
        long tensors = Tensor.TotalCount;
        packed.Call(inputs).Dispose();
        packed.Call(inputs, pool).Dispose();

        Assert.That(Tensor.TotalCount, Is.EqualTo(tensors));
    }

    [Test]
    public void Float64()
    {
        if (IsCuda)
        {
            Assert.Ignore("float64 is supported on the CPU alone");
        }

        var packed = new PackedCase { Dtype = ScalarType.Float64 };
        PackedCase.Inputs inputs = packed.Create(Device);
        Tensor pool = Values.Normal(22, ScalarType.Float64, Device, packed.Count, packed.Hv, packed.D, packed.E);
        Tensor before = pool.clone();
        Tensor output = packed.Call(inputs, pool);
        for (int i = 0; i < packed.Count; i++)
        {
            (Tensor alone, Tensor state) = packed.Alone(inputs, i, before.select(0, i));
            Assert.That(Values.Bits(packed.Rows(output, i)), Is.EqualTo(Values.Bits(alone)));
            Assert.That(Values.Bits(pool.select(0, i)), Is.EqualTo(Values.Bits(state)));
        }
    }

    private Tensor Flags(params bool[] flags) => torch.tensor(flags).to(Device);
}
