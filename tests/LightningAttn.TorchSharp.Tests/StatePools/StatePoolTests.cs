using LightningAttn.Tests.Support;

namespace LightningAttn.Tests.StatePools;

/// <summary>A pool of states: its slots, their states, saving and loading.</summary>
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
        Assert.That(() => pool.Allocate(), Throws.InvalidOperationException.With.Message.Contains("All 5 slots"));
        Assert.That(() => pool.Fork(slots[0]), Throws.InvalidOperationException.With.Message.Contains("All 5 slots"));

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
                use, Throws.InvalidOperationException.With.Message.EqualTo("slot 0, generation 1 has been freed."));
        }

        pool.Free(other);
        Assert.That(() => pool.Free(other), Throws.InvalidOperationException.With.Message.Contains("has been freed"));
        Assert.That(pool.Available, Is.EqualTo(Capacity));
    }

    [Test]
    public void AForeignSlotIsRefused()
    {
        using StatePool pool = Create();
        pool.Allocate();
        foreach (StateSlot foreign in new StateSlot[] { default, new(-1, 1), new(Capacity, 1), new(0, 2), new(1, 1) })
        {
            Assert.That(
                () => pool.Free(foreign), Throws.InvalidOperationException.With.Message.Contains("not of this pool"));
        }
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

    [Test]
    public void WhatIsSavedIsLoaded(
        [Values(ScalarType.Float32, ScalarType.BFloat16, ScalarType.Float16)] ScalarType dtype)
    {
        using StatePool pool = Create(dtype);
        StateSlot freed = pool.Allocate();
        StateSlot[] kept = [pool.Allocate(), pool.Allocate()];
        pool.Free(freed);
        Fill(pool, kept[0], 3);
        Fill(pool, kept[1], 4);
        using var stream = new MemoryStream();
        using (var writer = new BinaryWriter(stream, System.Text.Encoding.UTF8, leaveOpen: true))
        {
            pool.Save(writer);
        }

        stream.Position = 0;
        using var reader = new BinaryReader(stream);
        using StatePool loaded = StatePool.Load(reader, Device);

        Assert.That(loaded.Slots, Is.EqualTo(kept));
        Assert.That(loaded.Memory, Is.EqualTo(pool.Memory));
        Assert.That(loaded[1].shape, Is.EqualTo(pool[1].shape));
        Assert.That(loaded.Dtype, Is.EqualTo(dtype));
        Assert.That(StatesOf(loaded, kept[0]), Is.All.EqualTo(3));
        Assert.That(StatesOf(loaded, kept[1]), Is.All.EqualTo(4));
        Assert.That(() => loaded.Free(freed), Throws.InvalidOperationException.With.Message.Contains("been freed"));
        Assert.That(loaded.Available, Is.EqualTo(Capacity - 2));
    }

    [Test]
    public void AnEmptyPoolIsSavedToo()
    {
        using StatePool pool = Create();
        using var stream = new MemoryStream();
        pool.Save(new BinaryWriter(stream));
        stream.Position = 0;
        using StatePool loaded = StatePool.Load(new BinaryReader(stream), Device);

        Assert.That(loaded.Available, Is.EqualTo(Capacity));
    }

    [Test]
    public void DamagedDataIsRefused()
    {
        using StatePool pool = Create();
        pool.Allocate();
        using var stream = new MemoryStream();
        pool.Save(new BinaryWriter(stream));
        byte[] whole = stream.ToArray();

        Assert.That(() => Load([.. "another thing"u8]), Throws.InstanceOf<InvalidDataException>());
        foreach (int length in new[] { 0, 20, 40, 60 })
        {
            Assert.That(() => Load(whole[..length]), Throws.InstanceOf<InvalidDataException>());
        }

        whole[27] = 0; // the number of layers, after the magic text
        Assert.That(() => Load(whole), Throws.InstanceOf<InvalidDataException>());

        StatePool Load(byte[] bytes) => StatePool.Load(new BinaryReader(new MemoryStream(bytes)), Device);
    }

    [Test]
    public void MemoryIsReported()
    {
        using StatePool pool = Create(ScalarType.BFloat16);
        pool.Allocate();
        const long PerSlot = 3 * 8 * 16 * 2;

        Assert.That(
            pool.Memory, Is.EqualTo(new StatePoolMemory(PerSlot * Capacity, PerSlot * Capacity * Layers, PerSlot * Layers)));
        Assert.That(
            new StatePoolMemory(3 << 20, 6 << 20, 1 << 20).ToString(),
            Is.EqualTo("1.0 of 6.0 MiB in use, 3.0 MiB per layer"));
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
            Throws.ArgumentException.With.Message.Contains("dtype is int64, expected float32, bfloat16 or float16"));
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
            () => pool.Save(new BinaryWriter(new MemoryStream())),
        })
        {
            Assert.That(use, Throws.InstanceOf<ObjectDisposedException>());
        }
    }

    [Test]
    public void StatesOutliveTheScopeTheyWereMadeIn()
    {
        StatePool pool;
        using (torch.NewDisposeScope())
        {
            pool = Create();
        }

        Assert.That(pool[0].IsInvalid, Is.False);
        pool.Dispose();
    }

    [Test]
    public void ManyRandomOperationsAgainstAModel()
    {
        const int Operations = 1_000_000;
        const int Slots = 37;
        const int LooksEvery = 997;
        using var pool = new StatePool(1, Slots, 1, 1, 1, device: Device);
        var random = new Random(5);
        var model = new List<(StateSlot Slot, float Value)>();
        var freed = new List<StateSlot>();
        for (int operation = 0; operation < Operations; operation++)
        {
            int choice = random.Next(10);
            if (model.Count > 0 && choice < 4)
            {
                int at = random.Next(model.Count);
                pool.Free(model[at].Slot);
                freed.Add(model[at].Slot);
                model.RemoveAt(at);
            }
            else if (model.Count > 0 && model.Count < Slots && choice < 6)
            {
                (StateSlot slot, float value) = model[random.Next(model.Count)];
                model.Add((pool.Fork(slot), value));
            }
            else if (pool.TryAllocate(out StateSlot slot))
            {
                float value = 0;
                if (random.Next(50) == 0)
                {
                    value = operation % 1000;
                    Fill(pool, slot, value);
                }

                model.Add((slot, value));
            }
            else
            {
                Assert.That(model, Has.Count.EqualTo(Slots));
            }

            if (operation % LooksEvery == 0)
            {
                Compare();
                freed.Clear();
            }
        }

        Compare();

        void Compare()
        {
            Assert.That(pool.Slots, Is.EquivalentTo(model.Select(entry => entry.Slot)));
            Assert.That(pool.Available, Is.EqualTo(Slots - model.Count));
            using var scope = torch.NewDisposeScope();
            float[] states = pool[0].flatten().cpu().data<float>().ToArray();
            Assert.That(model.Select(entry => states[entry.Slot.Index]), Is.EqualTo(model.Select(entry => entry.Value)));
            foreach (StateSlot slot in freed.Take(3))
            {
                Assert.That(() => pool.Free(slot), Throws.InvalidOperationException);
            }
        }
    }

    [Test]
    public void ThreadsDoNotGetTheSameSlot()
    {
        const int Threads = 4;
        const int Rounds = 3000;
        using var pool = new StatePool(1, 2 * Threads, 1, 1, 1, device: Device);
        int[] owners = new int[2 * Threads];
        int faults = 0;
        Thread[] threads = [.. Enumerable.Range(1, Threads).Select(id => new Thread(() =>
        {
            for (int round = 0; round < Rounds; round++)
            {
                StateSlot slot = pool.Allocate();
                StateSlot fork = pool.Fork(slot);
                foreach (StateSlot mine in new[] { slot, fork })
                {
                    if (Interlocked.Exchange(ref owners[mine.Index], id) != 0)
                    {
                        Interlocked.Increment(ref faults);
                    }
                }

                foreach (StateSlot mine in new[] { slot, fork })
                {
                    Interlocked.Exchange(ref owners[mine.Index], 0);
                    pool.Free(mine);
                }
            }
        }))];
        Array.ForEach(threads, static thread => thread.Start());
        Array.ForEach(threads, static thread => thread.Join());

        Assert.That(faults, Is.Zero);
        Assert.That(pool.Available, Is.EqualTo(2 * Threads));
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
