using LightningAttn.Tests.Support;

namespace LightningAttn.Tests.StatePools;

/// <summary>Random operations against a model, and from several threads.</summary>
internal sealed class StatePoolPropertyTests(DeviceType deviceType) : OperatorFixture(deviceType)
{
    private const int Layers = 2;
    private const int Capacity = 16;

    /// <summary>On CUDA each operation is a launch or two per layer.</summary>
    private int Operations => IsCuda ? 100_000 : 1_000_000;

    /// <summary>
    /// The model is the value that fills each slot's states. Every operation's outcome is compared, the states of a
    /// slot after every 16th, and everything after every 4096th.
    /// </summary>
    [Test]
    public void RandomOperationsAgreeWithAModel()
    {
        var random = new Random(1);
        using var pool = new StatePool(Layers, Capacity, 1, 1, 2, device: Device);
        var live = new List<StateSlot>();
        var values = new Dictionary<StateSlot, float>();
        var freed = new List<StateSlot>();
        int operations = Operations;
        int refusals = 0;
        for (int operation = 0; operation < operations; operation++)
        {
            switch (random.Next(10))
            {
                case 0 or 1:
                    bool given = pool.TryAllocate(out StateSlot slot);
                    Require(given == live.Count < Capacity, "TryAllocate");
                    if (given)
                    {
                        Add(slot, 0);
                    }

                    break;
                case 2 when Capacity - live.Count >= 3:
                    foreach (StateSlot one in pool.Allocate(3))
                    {
                        Add(one, 0);
                    }

                    break;
                case 3 or 4 or 5 when live.Count > 0:
                    StateSlot last = Remove();
                    pool.Free(last);
                    freed.Add(last);
                    break;
                case 6 when live.Count is > 0 and < Capacity:
                    StateSlot source = Any(live);
                    Add(pool.Fork(source), values[source]);
                    break;
                case 7 when live.Count > 0:
                    StateSlot from = Any(live);
                    StateSlot to = Any(live);
                    pool.Copy(from, to);
                    values[to] = values[from];
                    break;
                case 8 when live.Count > 0:
                    Write(Any(live), operation % 4093);
                    break;
                case 9 when freed.Count > 0 && random.Next(16) == 0:
                    StateSlot stale = Any(freed);
                    Refused(() => pool.Free(stale));
                    Refused(() => pool.Fork(stale));
                    refusals++;
                    break;
                case 9 when live.Count > 0:
                    StateSlot reset = Any(live);
                    pool.Reset(reset);
                    values[reset] = 0;
                    break;
            }

            Require(pool.Available == Capacity - live.Count, "counts");
            if (operation % 16 == 0 && live.Count > 0)
            {
                Holds(Any(live));
            }

            if (operation % 4096 == 0 || operation == operations - 1)
            {
                Require(pool.Slots.ToHashSet().SetEquals(live), "Slots");
                live.ForEach(Holds);
            }
        }

        Assert.That(refusals, Is.GreaterThan(operations / 1000));

        void Add(StateSlot slot, float value)
        {
            Require(
                slot.Index is >= 0 and < Capacity && live.All(other => other.Index != slot.Index), $"{slot} is taken");
            live.Add(slot);
            values.Add(slot, value);
        }

        StateSlot Remove()
        {
            int at = random.Next(live.Count);
            StateSlot slot = live[at];
            live.RemoveAt(at);
            values.Remove(slot);
            return slot;
        }

        StateSlot Any(List<StateSlot> slots) => slots[random.Next(slots.Count)];

        void Write(StateSlot slot, float value)
        {
            using var scope = torch.NewDisposeScope();
            using Scalar fill = value;
            for (int layer = 0; layer < Layers; layer++)
            {
                pool[layer].select(0, slot.Index).fill_(fill);
            }

            values[slot] = value;
        }

        void Holds(StateSlot slot)
        {
            using var scope = torch.NewDisposeScope();
            for (int layer = 0; layer < Layers; layer++)
            {
                Tensor states = pool[layer].select(0, slot.Index).flatten();
                Require(
                    states[0].item<float>() == values[slot] && states[1].item<float>() == values[slot],
                    $"states of {slot} in layer {layer}");
            }
        }

        static void Refused(Action use)
        {
            try
            {
                use();
            }
            catch (InvalidOperationException)
            {
                return;
            }

            Assert.Fail("a freed slot was accepted");
        }

        // Assert.That takes longer than an operation.
        static void Require(bool holds, string what)
        {
            if (!holds)
            {
                Assert.Fail(what);
            }
        }
    }

    /// <summary>No slot is handed out to two threads at once, and none is lost.</summary>
    [Test]
    public void ThreadsShareAPool()
    {
        const int Threads = 4;
        int rounds = IsCuda ? 2_000 : 20_000;
        using var pool = new StatePool(1, Threads + 2, 1, 1, 1, device: Device);
        var owners = new int[pool.Capacity];
        var faults = new System.Collections.Concurrent.ConcurrentQueue<string>();
        Thread[] threads = [.. Enumerable.Range(1, Threads).Select(owner => new Thread(() => Work(owner)))];
        foreach (Thread thread in threads)
        {
            thread.Start();
        }

        foreach (Thread thread in threads)
        {
            thread.Join();
        }

        Assert.That(faults, Is.Empty);
        Assert.That(pool.Available, Is.EqualTo(pool.Capacity));
        Assert.That(pool.Allocate(pool.Capacity).Select(static slot => slot.Index), Is.Unique);

        void Work(int owner)
        {
            try
            {
                var random = new Random(owner);
                for (int round = 0; round < rounds && faults.IsEmpty; round++)
                {
                    if (!pool.TryAllocate(out StateSlot slot))
                    {
                        continue;
                    }

                    Own(slot);
                    using var scope = torch.NewDisposeScope();
                    Tensor state = pool[0].select(0, slot.Index);
                    state.fill_(owner);
                    if (random.Next(3) == 0 && TryFork(slot) is { } fork)
                    {
                        Own(fork);
                        if (pool[0].select(0, fork.Index).item<float>() != owner)
                        {
                            faults.Enqueue($"{fork} of {owner} is not a copy");
                        }

                        Release(fork);
                    }

                    if (state.item<float>() != owner)
                    {
                        faults.Enqueue($"the state of {slot} was written while {owner} had it");
                    }

                    Release(slot);
                }
            }
            catch (Exception error)
            {
                faults.Enqueue(error.ToString());
            }

            void Own(StateSlot slot)
            {
                int before = Interlocked.Exchange(ref owners[slot.Index], owner);
                if (before != 0)
                {
                    faults.Enqueue($"{slot} was handed out to {owner} while {before} had it");
                }
            }

            void Release(StateSlot slot)
            {
                Interlocked.Exchange(ref owners[slot.Index], 0);
                pool.Free(slot);
            }
        }

        StateSlot? TryFork(StateSlot slot)
        {
            try
            {
                return pool.Fork(slot);
            }
            catch (InvalidOperationException error) when (error.Message.Contains("no room", StringComparison.Ordinal))
            {
                return null;
            }
        }
    }
}
