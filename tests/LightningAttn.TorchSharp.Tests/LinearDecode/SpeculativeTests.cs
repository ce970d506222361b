using LightningAttn.Tests.Reference;
using LightningAttn.Tests.Support;

namespace LightningAttn.Tests.LinearDecode;

/// <summary>linear_decode_verify and linear_decode_commit.</summary>
internal sealed class SpeculativeTests(DeviceType deviceType) : OperatorFixture(deviceType)
{
    private const int SlotCount = 7;
    private const int Tokens = 4;

    private static readonly ScalarType[] s_dtypes = [ScalarType.Float32, ScalarType.BFloat16, ScalarType.Float16];

    private static readonly long[] s_slots = [5, 0, 6, 2];

    [Test]
    public void VerifyIsTheRecurrence(
        [ValueSource(nameof(s_dtypes))] ScalarType dtype, [Values(1, 3, 16)] int tokens, [Values(1, 4)] int heads)
    {
        var decode = new DecodeCase { Dtype = dtype, D = 24, E = 40, Hk = heads, Hv = 4 };
        Draft draft = Create(decode, tokens);
        Tensor pool = decode.States(Device, SlotCount);
        double[] states = [.. s_slots.SelectMany(slot => Values.Of(pool[slot]))];
        TokenRecurrence.Result expected = TokenRecurrence.Forward(new TokenRecurrence.Problem(
            decode.B,
            heads,
            4,
            tokens,
            decode.D,
            decode.E,
            Values.Of(draft.Q.transpose(1, 2).contiguous()),
            Values.Of(draft.K.transpose(1, 2).contiguous()),
            Values.Of(draft.V.transpose(1, 2).contiguous()),
            Values.Of(draft.Rates),
            states));
        Tensor output = Verify(draft, pool, Slots(s_slots));

        Assert.That(output.shape, Is.EqualTo(new long[] { decode.B, tokens, 4 * decode.E }));
        Assert.That(output.dtype, Is.EqualTo(dtype));
        Tensor byHead = output.reshape(decode.B, tokens, 4, decode.E).transpose(1, 2).contiguous();
        Accuracy.AssertClose("output", byHead, expected.Output, null, dtype, decode.ToString());
    }

    [Test]
    public void VerifyAndCommitAreDecodingTokenByToken(
        [ValueSource(nameof(s_dtypes))] ScalarType dtype, [Values] Layout layout)
    {
        Draft draft = Create(new DecodeCase { Dtype = dtype, D = 72, E = 40, Layout = layout, Hv = 4 }, Tokens);
        Tensor pool = draft.Case.States(Device, SlotCount);
        byte[] before = Values.Bits(pool);
        Tensor slots = Slots([5, -1, 6, 2]);
        Tensor verified = Verify(draft, pool, slots);
        Assert.That(Values.Bits(pool), Is.EqualTo(before));

        long[] accepted = [4, 2, 0, 1];
        Tensor expectedPool = pool.clone();
        for (int token = 0; token < Tokens; token++)
        {
            Tensor step = StepAfterThoseBefore(draft, token, pool.clone(), slots);
            Assert.That(Values.Bits(verified.select(1, token).contiguous()), Is.EqualTo(Values.Bits(step)));
            Tensor taking = Slots([.. Enumerable.Range(0, 4).Select(
                row => token < accepted[row] ? new long[] { 5, -1, 6, 2 }[row] : -1)]);
            Step(draft, token, expectedPool, taking);
        }

        Commit(draft, pool, slots, Slots(accepted));
        Assert.That(Values.Bits(pool), Is.EqualTo(Values.Bits(expectedPool)));
    }

    [Test]
    public void OtherPoolsAreReadExactlyAndRoundedOnce(
        [Values(ScalarType.BFloat16, ScalarType.Float16)] ScalarType poolType,
        [ValueSource(nameof(s_dtypes))] ScalarType dtype)
    {
        Draft draft = Create(new DecodeCase { Dtype = dtype, CacheDtype = poolType, D = 40, E = 72 }, Tokens);
        Tensor pool = draft.Case.States(Device, SlotCount);
        Tensor wide = pool.to(ScalarType.Float32);
        Tensor slots = Slots(s_slots);
        Assert.That(
            Values.Bits(Verify(draft, pool, slots)), Is.EqualTo(Values.Bits(Verify(draft, wide, slots))));

        Tensor accepted = Slots([1, 4, 3, 2]);
        Commit(draft, pool, slots, accepted);
        Commit(draft, wide, slots, accepted);
        Assert.That(Values.Bits(pool), Is.EqualTo(Values.Bits(wide.to(poolType))));
    }

    [Test]
    public void ASlicedPoolAndIndicesOfEitherTypeAndAnyStride(
        [Values(ScalarType.Int32, ScalarType.Int64)] ScalarType type)
    {
        Draft draft = Create(new DecodeCase(), Tokens);
        Tensor dense = draft.Case.States(Device, SlotCount);
        Tensor larger = torch.full([SlotCount + 2, 4, 34, 33], 3, ScalarType.Float32, Device);
        Tensor sliced = larger.narrow(0, 1, SlotCount).narrow(1, 1, 2).narrow(2, 1, 32).narrow(3, 1, 32);
        sliced.copy_(dense);
        Tensor slots = Slots(s_slots);
        Tensor accepted = Slots([1, 4, 3, 0]);
        Tensor stridedSlots = Strided(slots, type);
        Assert.That(
            Values.Bits(Verify(draft, sliced, stridedSlots)), Is.EqualTo(Values.Bits(Verify(draft, dense, slots))));

        Commit(draft, dense, slots, accepted);
        Commit(draft, sliced, stridedSlots, Strided(accepted, type));
        Assert.That(Values.Bits(sliced.contiguous()), Is.EqualTo(Values.Bits(dense)));
        sliced.fill_(3);
        Assert.That(Values.Of(larger), Is.All.EqualTo(3));

        static Tensor Strided(Tensor indices, ScalarType type) =>
            torch.stack([indices, indices.neg()], 1).to(type).select(1, 0);
    }

    [Test]
    public void ARowIsTheSameAloneAndInABatch()
    {
        Draft draft = Create(new DecodeCase { Dtype = ScalarType.BFloat16 }, Tokens);
        Tensor pool = draft.Case.States(Device, SlotCount);
        Tensor together = Verify(draft, pool, Slots(s_slots));
        for (int row = 0; row < draft.Case.B; row++)
        {
            Tensor alone = Functional.linear_decode_verify(
                draft.Q.narrow(0, row, 1),
                draft.K.narrow(0, row, 1),
                draft.V.narrow(0, row, 1),
                pool,
                draft.Rates,
                Slots([s_slots[row]]));
            Assert.That(Values.Bits(alone[0]), Is.EqualTo(Values.Bits(together[row])));
        }
    }

    [Test]
    public void WhatIsOutOfRangeIsAnErrorOnTheCpuAndHarmlessOnCuda()
    {
        Draft draft = Create(new DecodeCase(), Tokens);
        Tensor pool = draft.Case.States(Device, SlotCount);
        Tensor expected = pool.clone();
        Tensor wrongSlots = Slots([SlotCount, -2, long.MaxValue, -1]);
        Tensor wrongCounts = Slots([-1, 5, long.MaxValue, 2]);
        if (IsCuda)
        {
            Assert.That(Values.Of(Verify(draft, pool, wrongSlots)), Is.All.Zero);
            Commit(draft, pool, wrongSlots, Slots([1, 2, 3, 4]));
            Assert.That(Values.Bits(pool), Is.EqualTo(Values.Bits(expected)));
            Commit(draft, pool, Slots(s_slots), wrongCounts);
            Commit(draft, expected, Slots(s_slots), Slots([0, 4, 4, 2]));
        }
        else
        {
            Assert.That(
                () => Verify(draft, pool, wrongSlots),
                Throws.ArgumentException.With.Message.Contains(
                    "slot_idx is 7 for row 0, expected 0 to 6 (state_pool has 7 slots)"));
            Assert.That(
                () => Commit(draft, pool, Slots(s_slots), wrongCounts),
                Throws.ArgumentException.With.Message.Contains("accepted is -1 for row 0, expected 0 to 4"));
        }

        Assert.That(Values.Bits(pool), Is.EqualTo(Values.Bits(expected)));
    }

    [Test]
    public void TheDebugSwitchReportsBothOnEveryDevice()
    {
        Draft draft = Create(new DecodeCase(), Tokens);
        Tensor pool = draft.Case.States(Device, SlotCount);
        AppContext.SetSwitch(SlotDebugging.SwitchName, true);
        try
        {
            Assert.That(
                () => Verify(draft, pool, Slots([0, 1, 7, 2])),
                Throws.ArgumentException.With.Message.Contains("slot_idx is 7 for row 2"));
            Assert.That(
                () => Commit(draft, pool, Slots(s_slots), Slots([0, 1, 2, 5])),
                Throws.ArgumentException.With.Message.Contains("accepted is 5 for row 3"));
        }
        finally
        {
            AppContext.SetSwitch(SlotDebugging.SwitchName, false);
        }
    }

    [Test]
    public void WhatRequiresAGradientIsRefusedWhileRecording()
    {
        Draft draft = Create(new DecodeCase(), Tokens);
        Tensor pool = draft.Case.States(Device, SlotCount);
        foreach (Tensor argument in new[] { draft.Q, draft.K, draft.V, draft.Rates, pool })
        {
            argument.requires_grad = true;
            Assert.That(
                () => Verify(draft, pool, Slots(s_slots)),
                Throws.InvalidOperationException.With.Message.Contains(
                    "requires a gradient, but linear_decode_verify gives none"));
            if (!ReferenceEquals(argument, draft.Q))
            {
                Assert.That(
                    () => Commit(draft, pool, Slots(s_slots), Slots(s_slots)),
                    Throws.InvalidOperationException.With.Message.Contains("linear_decode_commit gives none"));
            }

            using (torch.no_grad())
            {
                Assert.That(() => Verify(draft, pool, Slots(s_slots)), Throws.Nothing);
            }

            argument.requires_grad = false;
        }
    }

    [Test]
    public void AnEmptyBatch()
    {
        Draft draft = Create(new DecodeCase { B = 0 }, Tokens);
        Tensor pool = draft.Case.States(Device, SlotCount);
        byte[] before = Values.Bits(pool);
        Assert.That(Verify(draft, pool, Slots([])).shape, Is.EqualTo(new long[] { 0, Tokens, 2 * 32 }));
        Commit(draft, pool, Slots([]), Slots([]));
        Assert.That(Values.Bits(pool), Is.EqualTo(before));
    }

    [Test]
    public void ACallLeavesItsResultAlone()
    {
        Draft draft = Create(new DecodeCase { Layout = Layout.LastAxisStrided }, Tokens);
        Tensor pool = draft.Case.States(Device, SlotCount);
        Tensor slots = Slots(s_slots);
        Tensor accepted = Slots([1, 2, 3, 4]);
        long tensors = Tensor.TotalCount;
        Commit(draft, pool, slots, accepted);
        Assert.That(Tensor.TotalCount - tensors, Is.Zero);
        Verify(draft, pool, slots);
        Assert.That(Tensor.TotalCount - tensors, Is.EqualTo(1));
    }

    private static Tensor Verify(Draft draft, Tensor pool, Tensor slots) =>
        Functional.linear_decode_verify(draft.Q, draft.K, draft.V, pool, draft.Rates, slots);

    private static void Commit(Draft draft, Tensor pool, Tensor slots, Tensor accepted) =>
        Functional.linear_decode_commit(draft.K, draft.V, pool, draft.Rates, slots, accepted);

    private static Tensor Step(Draft draft, int token, Tensor pool, Tensor slots) => Functional.linear_decode_forward(
        draft.Q.narrow(1, token, 1).transpose(1, 2),
        draft.K.narrow(1, token, 1).transpose(1, 2),
        draft.V.narrow(1, token, 1).transpose(1, 2),
        pool,
        draft.Rates,
        slots);

    /// <summary>The output of one token after those before it.</summary>
    private static Tensor StepAfterThoseBefore(Draft draft, int token, Tensor pool, Tensor slots)
    {
        for (int earlier = 0; earlier < token; earlier++)
        {
            Step(draft, earlier, pool, slots);
        }

        return Step(draft, token, pool, slots);
    }

    private Draft Create(DecodeCase decode, int tokens)
    {
        Tensor q = Values.Normal(21, decode.Dtype, Device, decode.B, tokens, decode.Hk, decode.D).In(decode.Layout);
        Tensor k = Values.Normal(22, decode.Dtype, Device, decode.B, tokens, decode.Hk, decode.D).In(decode.Layout);
        Tensor v = Values.Normal(23, decode.Dtype, Device, decode.B, tokens, decode.Hv, decode.E).In(decode.Layout);
        return new Draft(decode, q, k, v, decode.Create(Device).Rates);
    }

    private Tensor Slots(long[] slots) => torch.tensor(slots, dtype: ScalarType.Int64).to(Device);

    private sealed record Draft(DecodeCase Case, Tensor Q, Tensor K, Tensor V, Tensor Rates);
}
