using LightningAttn.Tests.Support;

namespace LightningAttn.Tests.StatePools;

/// <summary>Saving a pool and loading it.</summary>
internal sealed class StatePoolFileTests(DeviceType deviceType) : OperatorFixture(deviceType)
{
    private const string Title = "LightningAttn state pool 1: 2 layers, 4 slots, float32 [2, 3, 5]";

    /// <summary>Where the list of slots begins, and with two slots in it the states.</summary>
    private const int SlotList = 65;
    private const int FirstState = SlotList + 4 + (2 * 12);

    private static readonly ScalarType[] s_dtypes =
        [ScalarType.Float32, ScalarType.BFloat16, ScalarType.Float16, ScalarType.Float64];

    [Test]
    public void ALoadedPoolHasTheSlotsAndTheirStates(
        [ValueSource(nameof(s_dtypes))] ScalarType dtype, [Values] bool intoItself)
    {
        using StatePool pool = Create(dtype);
        StateSlot[] slots = pool.Allocate(3);
        pool.Free(slots[1]);
        for (int layer = 0; layer < 2; layer++)
        {
            pool[layer].copy_(Values.Normal(layer, dtype, Device, 4, 2, 3, 5));
        }

        byte[][] expected = [.. States(pool)];
        byte[] saved = Save(pool);
        using StatePool target = intoItself ? pool : Create(dtype);
        StateSlot[] later = target.Allocate(2);
        target[0].fill_(9);
        Load(target, saved);

        Assert.That(target.Slots, Is.EqualTo(new[] { slots[0], slots[2] }));
        Assert.That(target.Available, Is.EqualTo(2));
        Assert.That(States(target), Is.EqualTo(expected));
        foreach (StateSlot slot in later.Append(slots[1]))
        {
            Assert.That(() => target.Free(slot), Throws.InvalidOperationException);
        }

        StateSlot[] next = target.Allocate(2);
        Assert.That(next.Select(static slot => slot.Index), Is.EquivalentTo(new[] { 1, 3 }));
        Assert.That(next.Intersect(later.Concat(slots)), Is.Empty);
        target.Free(slots[0]);
        target.Free(slots[2]);

        IEnumerable<byte[]> States(StatePool of) =>
            from slot in new[] { slots[0], slots[2] }
            from layer in new[] { 0, 1 }
            select Values.Bits(of[layer][slot.Index]);
    }

    [Test]
    public void AFileAndAnEmptyPool()
    {
        using StatePool pool = Create();
        using StatePool loaded = Create();
        string path = Path.Combine(TestContext.CurrentContext.WorkDirectory, $"{Guid.NewGuid():n}.states");
        try
        {
            pool.Save(path);
            loaded.Allocate();
            loaded.Load(path);
            Assert.That(loaded.Available, Is.EqualTo(4));

            StateSlot slot = pool.Allocate();
            pool.Save(path);
            loaded.Load(path);
            Assert.That(loaded.Slots, Is.EqualTo(new[] { slot }));
            Assert.That(File.Exists(path + ".tmp"), Is.False);
        }
        finally
        {
            File.Delete(path);
        }

        Assert.That(() => loaded.Load(path), Throws.InstanceOf<FileNotFoundException>());
        Assert.That(loaded.Available, Is.EqualTo(3));
    }

    [Test]
    public void APoolOfAnotherShapeIsRefusedAndStaysAsItIs()
    {
        using StatePool pool = Create();
        pool.Allocate(2);
        byte[] saved = Save(pool);
        Refuse(new StatePool(3, 4, 2, 3, 5, device: Device), "3 layers, 4 slots, float32 [2, 3, 5]");
        Refuse(new StatePool(2, 10, 2, 3, 5, device: Device), "2 layers, 10 slots, float32 [2, 3, 5]");
        Refuse(new StatePool(2, 4, 1, 3, 5, device: Device), "2 layers, 4 slots, float32 [1, 3, 5]");
        Refuse(new StatePool(2, 4, 2, 5, 5, device: Device), "2 layers, 4 slots, float32 [2, 5, 5]");
        Refuse(new StatePool(2, 4, 2, 3, 3, device: Device), "2 layers, 4 slots, float32 [2, 3, 3]");
        Refuse(Create(ScalarType.BFloat16), "2 layers, 4 slots, bfloat16 [2, 3, 5]");

        void Refuse(StatePool other, string sizes)
        {
            using (other)
            {
                StateSlot slot = other.Allocate();
                Assert.That(
                    () => Load(other, saved),
                    Throws.TypeOf<InvalidDataException>().With.Message.EqualTo(
                        $"The saved pool is \"{Title}\", this one \"LightningAttn state pool 1: {sizes}\"."));
                Assert.That(other.Slots, Is.EqualTo(new[] { slot }));
            }
        }
    }

    [Test]
    public void ATruncatedFileIsRefused()
    {
        using StatePool pool = Create();
        pool.Allocate(2);
        byte[] saved = Save(pool);
        for (int length = 0; length < saved.Length; length++)
        {
            Assert.That(() => Load(pool, saved[..length]), Throws.TypeOf<InvalidDataException>(), $"{length} bytes");
            Assert.That(pool.Available, Is.EqualTo(length < FirstState ? 2 : 4), $"{length} bytes");
        }

        Load(pool, saved);
        Assert.That(pool.Available, Is.EqualTo(2));
    }

    /// <summary>Nothing that a file says is allocated, and no index is believed.</summary>
    [Test]
    public void AHostileFileIsRefused()
    {
        using StatePool pool = Create();
        pool.Allocate(2);
        byte[] saved = Save(pool);
        Refuse([.. "another thing"u8], "damaged");
        Refuse([.. "another thing\n"u8], "not a saved state pool");
        Refuse(new byte[4096], "not a saved state pool");
        Refuse(With(SlotList, BitConverter.GetBytes(int.MaxValue)), "2147483647 of 4 slots in use");
        Refuse(With(SlotList, BitConverter.GetBytes(-1)), "-1 of 4 slots in use");
        Refuse(With(SlotList + 4, BitConverter.GetBytes(-1)), "slot -1 ");
        Refuse(With(SlotList + 4, BitConverter.GetBytes(4)), "slot 4 ");
        Refuse(With(SlotList + 16, BitConverter.GetBytes(0)), "after slot 0"); // the same slot twice
        Refuse(With(SlotList + 8, new byte[8]), "(generation 0)");
        Assert.That(pool.Available, Is.EqualTo(2));

        Refuse(With(FirstState, [7]), "has another shape"); // type float64
        Refuse(With(FirstState + 1, [0xff, 0xff, 0xff, 0xff, 0x7f]), "has another shape"); // 2^35 dimensions
        Refuse(With(FirstState + 2, [.. Enumerable.Repeat((byte)0xff, 12)]), "damaged"); // no number
        Assert.That(pool.Available, Is.EqualTo(4));
        Load(pool, saved);
        Assert.That(pool.Available, Is.EqualTo(2));

        byte[] With(int offset, byte[] bytes)
        {
            byte[] changed = [.. saved];
            bytes.CopyTo(changed, offset);
            return changed;
        }

        void Refuse(byte[] file, string message) =>
            Assert.That(
                () => Load(pool, file), Throws.TypeOf<InvalidDataException>().With.Message.Contains(message));
    }

    private static byte[] Save(StatePool pool)
    {
        using var stream = new MemoryStream();
        using (var writer = new BinaryWriter(stream))
        {
            pool.Save(writer);
        }

        return stream.ToArray();
    }

    private static void Load(StatePool pool, byte[] saved)
    {
        using var reader = new BinaryReader(new MemoryStream(saved));
        pool.Load(reader);
    }

    private StatePool Create(ScalarType dtype = ScalarType.Float32) => new(2, 4, 2, 3, 5, dtype, Device);
}
