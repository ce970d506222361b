using LightningAttn.Tests.Support;

namespace LightningAttn.Tests.StatePools;

/// <summary>A pool of states: its slots and their states.</summary>
internal sealed class StatePoolTests(DeviceType deviceType) : OperatorFixture(deviceType)
{
    private const int Layers = 2;
    private const int Capacity = 5;

    [Test]
    public void SlotsAreHandedOutOnceAndComeBack()
    {
        using StatePool pool = Create();
        StateSlot[] slots = [.. Enumerable.Range(0, Capacity).Select(_ => pool.Allocate())];

        Assert.That(slots.Select(slot => slot.Index), Is.Unique.And.All.InRange(0, Capacity - 1));
        Assert.That(pool.Slots, Is.EquivalentTo(slots));
        Assert.That(pool.Available, Is.Zero);
        Assert.That(pool.TryAllocate(out _), Is.False);
        foreach (Action use in new Action[] { () => pool.Allocate(), () => pool.Fork(slots[0]) })
        {
            Assert.That(
                use,
                Throws.InvalidOperationException.With.Message.EqualTo(
                    "The pool has no room for 1 more: 5 of 5 slots are in use."));
        }

        pool.Free(slots[3]);
        StateSlot again = pool.Allocate();

        Assert.That(again.Index, Is.EqualTo(slots[3].Index));
        Assert.That(again, Is.Not.EqualTo(slots[3]));
    }

    [Test]
    public void ANewSlotIsZeros()
    {
        using StatePool pool = Create();
        StateSlot slot = pool.Allocate();
        Fill(pool, slot, 3);
        pool.Free(slot);
        StateSlot again = pool.Allocate();

        Assert.That(again.Index, Is.EqualTo(slot.Index));
        Assert.That(StatesOf(pool, again), Is.All.Zero);
    }

    [Test]
    public void ForksAndCopiesAreOfTheirOwn()
    {
        using StatePool pool = Create();
        StateSlot slot = pool.Allocate();
        StateSlot bystander = pool.Allocate();
        Fill(pool, slot, 3);
        Fill(pool, bystander, 4);
        StateSlot fork = pool.Fork(slot);
        Fill(pool, slot, 5);

        Assert.That(StatesOf(pool, fork), Is.All.EqualTo(3));
        Assert.That(StatesOf(pool, bystander), Is.All.EqualTo(4));

        pool.Copy(bystander, slot);
        pool.Reset(bystander);

        Assert.That(StatesOf(pool, slot), Is.All.EqualTo(4));
        Assert.That(StatesOf(pool, bystander), Is.All.Zero);
        Assert.That(StatesOf(pool, fork), Is.All.EqualTo(3));
    }

    [Test]
    public void AFreedSlotIsRefusedEverywhere()
    {
        using StatePool pool = Create();
        StateSlot freed = pool.Allocate();
        pool.Free(freed);
        StateSlot other = pool.Allocate(); // in the same place
        foreach (Action use in new Action[]
        {
            () => pool.Free(freed), () => pool.Reset(freed), () => pool.Fork(freed), () => pool.Copy(freed, other),
            () => pool.Copy(other, freed), () => pool.Indices(other, freed),
        })
        {
            Assert.That(
                use,
                Throws.InvalidOperationException.With.Message.StartsWith(
                    $"{freed} has been freed and handed out again"));
        }

        pool.Free(other);
        Assert.That(() => pool.Free(other), Throws.InvalidOperationException.With.Message.Contains("has been freed"));
        Assert.That(pool.Available, Is.EqualTo(Capacity));
    }

    [Test]
    public void AForeignSlotIsRefused()
    {
        using StatePool pool = Create();
        using StatePool another = Create();
        StateSlot own = pool.Allocate();
        foreach (StateSlot foreign in new StateSlot[]
        {
            default, another.Allocate(), own with { Index = -1 }, own with { Index = 1 }, own with { Index = Capacity },
        })
        {
            Assert.That(
                () => pool.Free(foreign),
                Throws.InvalidOperationException.With.Message.Contains("not of this pool of 5 slots"));
        }

        pool.Free(own);
    }

    [Test]
    public void SeveralSlotsAtOnceOrNone()
    {
        using StatePool pool = Create();
        Assert.That(pool.Allocate(0), Is.Empty);
        StateSlot[] slots = pool.Allocate(3);
        Fill(pool, slots[0], 3);
        Fill(pool, slots[1], 4);
        Fill(pool, slots[2], 5);
        pool.Free(slots[0]);
        pool.Free(slots[2]);
        Assert.That(
            () => pool.Allocate(5),
            Throws.InvalidOperationException.With.Message.EqualTo(
                "The pool has no room for 5 more: 1 of 5 slots are in use."));
        Assert.That(pool.Slots, Is.EqualTo(new[] { slots[1] }));

        StateSlot[] again = pool.Allocate(4);
        Assert.That(pool.Available, Is.Zero);
        Assert.That(again.SelectMany(slot => StatesOf(pool, slot)), Is.All.Zero);
        Assert.That(StatesOf(pool, slots[1]), Is.All.EqualTo(4));
        Assert.That(() => pool.Allocate(-1), Throws.InstanceOf<ArgumentOutOfRangeException>());
    }

    [Test]
    public void IndicesAreWhatDecodingTakes()
    {
        using StatePool pool = Create();
        StateSlot first = pool.Allocate();
        StateSlot second = pool.Allocate();
        Tensor indices = pool.Indices(second, null, first);

        Assert.That(indices.dtype, Is.EqualTo(ScalarType.Int64));
        Assert.That(indices.device_type, Is.EqualTo(Device.type));
        Assert.That(indices.cpu().data<long>(), Is.EqualTo(new long[] { second.Index, -1, first.Index }));
        Assert.That(pool.Indices().shape, Is.EqualTo(new long[] { 0 }));
        Assert.That(
            () => pool.Indices(first, null, first),
            Throws.ArgumentException.With.Message.StartsWith($"{first} is that of row 2 and of one before it."));
    }

    [Test]
    public void AForkedStreamDecodesAsAlone()
    {
        var decode = new DecodeCase { B = 2, D = 16, E = 24 };
        using var pool = new StatePool(1, 3, decode.Hv, decode.D, decode.E, device: Device);
        StateSlot slot = pool.Allocate();
        pool.Allocate();
        DecodeCase.Inputs inputs = decode.Create(Device);
        Step([0], pool, slot);
        StateSlot fork = pool.Fork(slot);
        Tensor together = Step([0, 1], pool, slot, fork);

        using var alone = new StatePool(1, 1, decode.Hv, decode.D, decode.E, device: Device);
        StateSlot only = alone.Allocate();
        Step([0], alone, only);
        Tensor expected = Step([1], alone, only);

        Assert.That(Values.Bits(together[1]), Is.EqualTo(Values.Bits(expected[0])));
        Assert.That(Values.Bits(pool[0][fork.Index]), Is.EqualTo(Values.Bits(alone[0][only.Index])));

        Tensor Step(long[] rows, StatePool of, params StateSlot[] slots)
        {
            Tensor chosen = torch.tensor(rows).to(Device);
            return Functional.linear_decode_forward(
                inputs.Q.index_select(0, chosen),
                inputs.K.index_select(0, chosen),
                inputs.V.index_select(0, chosen),
                of[0],
                inputs.Rates,
                of.Indices([.. slots.Select(one => (StateSlot?)one)]));
        }
    }

    /// <summary>A common beginning is read once; forks go on from it, beside a prompt that starts anew.</summary>
    [Test]
    public void AForkedPrefixGoesOnAsIfItHadBeenReadAgain()
    {
        Tensor x = Values.Normal(3, ScalarType.Float32, Device, 100, 2, 16);
        Tensor rates = torch.tensor(new[] { 0.1f, 0.5f }).to(Device);
        using var pool = new StatePool(1, Capacity, 2, 16, 16, device: Device);
        StateSlot[] slots = pool.Allocate(2);
        Read(pool, [0, 64], [slots[0]], false);
        StateSlot fork = pool.Fork(slots[0]);
        Tensor together = Read(pool, [64, 80, 100], [slots[1], fork], false, true);

        using var alone = new StatePool(1, 1, 2, 16, 16, device: Device);
        StateSlot only = alone.Allocate();
        Read(alone, [0, 64], [only], false);
        Tensor expected = Read(alone, [80, 100], [only], true);

        Assert.That(Values.Bits(together.narrow(0, 80, 20)), Is.EqualTo(Values.Bits(expected.narrow(0, 80, 20))));
        Assert.That(Values.Bits(pool[0][fork.Index]), Is.EqualTo(Values.Bits(alone[0][only.Index])));

        Tensor Read(StatePool of, long[] offsets, StateSlot[] sequences, params bool[] goesOn) =>
            Functional.lightning_attention_varlen(
                x,
                x,
                x,
                rates,
                torch.tensor(offsets).to(Device),
                of[0],
                of.Indices([.. sequences.Select(static slot => (StateSlot?)slot)]),
                torch.tensor(goesOn).to(Device));
    }

    [Test]
    public void MemoryIsReported()
    {
        using StatePool pool = Create(ScalarType.BFloat16);
        pool.Allocate(2);
        const long PerSlot = 3 * 8 * 16 * 2;

        Assert.That(pool.Memory, Is.EqualTo(new StatePoolMemory(Layers, Capacity, 2, PerSlot * Capacity)));
        Assert.That(pool.Memory.TotalBytes, Is.EqualTo(PerSlot * Capacity * Layers));
        Assert.That(pool.Memory.BytesPerSlot, Is.EqualTo(PerSlot * Layers));
        Assert.That(pool.Memory.BytesInUse, Is.EqualTo(2 * PerSlot * Layers));
        Assert.That(
            new StatePoolMemory(4, 16, 3, 16 << 20).ToString(),
            Is.EqualTo("3 of 16 slots in use, 12.0 of 64.0 MiB, 16.0 MiB per layer"));
    }

    [Test]
    public void WrongSizesAreNamed()
    {
        Assert.That(() => new StatePool(0, 1, 1, 1, 1), Throws.InstanceOf<ArgumentOutOfRangeException>());
        Assert.That(
            () => new StatePool(1, 1, 1, -3, 1),
            Throws.InstanceOf<ArgumentOutOfRangeException>().With.Message.Contains("head_dim_qk")
                .And.Message.Contains("-3"));
        Assert.That(
            () => new StatePool(1, 1, 1, 1, 1, ScalarType.Int64),
            Throws.ArgumentException.With.Message.Contains(
                "dtype is int64, expected float32, bfloat16, float16 or float64"));
        using StatePool pool = Create();
        Assert.That(() => pool[Layers], Throws.InstanceOf<ArgumentOutOfRangeException>());
    }

    [Test]
    public void ADisposedPoolRefusesEverything()
    {
        StatePool pool = Create();
        StateSlot slot = pool.Allocate();
        pool.Dispose();
        pool.Dispose();
        foreach (Action use in new Action[]
        {
            () => pool.Allocate(), () => pool.TryAllocate(out _), () => pool.Free(slot), () => pool.Reset(slot),
            () => pool.Fork(slot), () => pool.Copy(slot, slot), () => pool.Indices(slot), () => _ = pool[0],
            () => pool.Save(new BinaryWriter(Stream.Null)), () => pool.Load(new BinaryReader(Stream.Null)),
        })
        {
            Assert.That(use, Throws.InstanceOf<ObjectDisposedException>());
        }
    }

    [Test]
    public void StatesOutliveScopesAndNothingElseDoes()
    {
        StatePool pool;
        using (torch.NewDisposeScope())
        {
            pool = Create();
        }

        using var scope = torch.NewDisposeScope();
        StateSlot slot = pool.Allocate();
        pool.Allocate(2);
        pool.Reset(slot);
        pool.Copy(slot, pool.Fork(slot));
        using var stream = new MemoryStream();
        pool.Save(new BinaryWriter(stream));
        stream.Position = 0;
        pool.Load(new BinaryReader(stream));
        Assert.That(scope.DisposablesCount, Is.Zero);
        pool.Indices(slot);
        Assert.That(scope.DisposablesCount, Is.EqualTo(1));
        Tensor states = pool[0];
        Assert.That(states.IsInvalid, Is.False);
        pool.Dispose();
        Assert.That(states.IsInvalid, Is.True);
    }

    [Test]
    public void APoolMadeInInferenceModeIsUsedOutsideOfIt()
    {
        StatePool pool;
        using (torch.inference_mode())
        {
            pool = Create();
        }

        using (pool)
        {
            Assert.That(StatesOf(pool, pool.Allocate()), Is.All.Zero);
        }
    }

    private static void Fill(StatePool pool, StateSlot slot, float value)
    {
        using var scope = torch.NewDisposeScope();
        for (int layer = 0; layer < pool.Layers; layer++)
        {
            pool[layer][slot.Index].fill_(value);
        }
    }

    private static double[] StatesOf(StatePool pool, StateSlot slot) =>
        [.. Enumerable.Range(0, pool.Layers).SelectMany(layer => Values.Of(pool[layer][slot.Index]))];

    private StatePool Create(ScalarType dtype = ScalarType.Float32) =>
        new(Layers, Capacity, 3, 8, 16, dtype, Device);
}
