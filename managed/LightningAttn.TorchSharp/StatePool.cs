using System.Text;
using TorchSharp;
using static TorchSharp.torch;

namespace LightningAttn;

/// <summary>
/// The recurrent states of many requests: one tensor [slots, H, D, E] per layer, as <c>linear_decode_forward</c> takes
/// it for kv_caches, and the bookkeeping of who has which slot. A request has the same slot in every layer.
/// </summary>
/// <remarks>
/// All members may be called by several threads. That holds for the bookkeeping; the states themselves are read and
/// written in the order of the device's stream, as those of any tensor, and a slot is one request's at a time.
/// Saving and loading wait for the device; nothing else does. No gradients are recorded.
/// </remarks>
public sealed class StatePool : IDisposable
{
    private readonly Lock _lock = new();
    private readonly Tensor[] _layers;
    private readonly int[] _sizes; // of a state: H, D, E
    private readonly long[] _generations; // of each slot, the latest; 0 before the first
    private readonly bool[] _inUse;
    private readonly Stack<int> _free;
    private long _generation = Random.Shared.NextInt64(1, long.MaxValue / 2);
    private bool _disposed;

    /// <summary>A pool of zeros with every slot free.</summary>
    /// <param name="layers">Tensors; at least 1.</param>
    /// <param name="slots">Requests that fit; at least 1.</param>
    /// <param name="heads">H, value heads; at least 1.</param>
    /// <param name="head_dim_qk">D; at least 1.</param>
    /// <param name="head_dim_v">E; at least 1.</param>
    /// <param name="dtype">float32, bfloat16 or float16; float64 for float64 inputs.</param>
    /// <param name="device">The CPU where it is left out.</param>
    /// <exception cref="ArgumentOutOfRangeException">A size is below 1.</exception>
    /// <exception cref="ArgumentException">Another type.</exception>
    public StatePool(
        int layers,
        int slots,
        int heads,
        int head_dim_qk,
        int head_dim_v,
        ScalarType dtype = ScalarType.Float32,
        Device? device = null)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(layers, 1);
        ArgumentOutOfRangeException.ThrowIfLessThan(slots, 1);
        ArgumentOutOfRangeException.ThrowIfLessThan(heads, 1);
        ArgumentOutOfRangeException.ThrowIfLessThan(head_dim_qk, 1);
        ArgumentOutOfRangeException.ThrowIfLessThan(head_dim_v, 1);
        if (dtype is not (ScalarType.Float32 or ScalarType.BFloat16 or ScalarType.Float16 or ScalarType.Float64))
        {
            throw new ArgumentException(
                $"dtype is {Check.Name(dtype)}, expected float32, bfloat16, float16 or float64.", nameof(dtype));
        }

        (_sizes, Dtype, Device) = ([heads, head_dim_qk, head_dim_v], dtype, device ?? torch.CPU);
        _generations = new long[slots];
        _inUse = new bool[slots];
        _free = new Stack<int>(slots);
        FillFree();
        _layers = new Tensor[layers];
        try
        {
            // What is made in inference mode could not be written outside of it.
            using var mode = torch.inference_mode(false);
            for (int layer = 0; layer < layers; layer++)
            {
                _layers[layer] = torch.zeros([slots, heads, head_dim_qk, head_dim_v], dtype, Device)
                    .DetachFromDisposeScope();
            }
        }
        catch
        {
            Dispose();
            throw;
        }
    }

    /// <summary>Number of layers.</summary>
    public int Layers => _layers.Length;

    /// <summary>Slots, handed out or not.</summary>
    public int Capacity => _inUse.Length;

    /// <summary>Type of the states.</summary>
    public ScalarType Dtype { get; }

    /// <summary>Where the states are.</summary>
    public Device Device { get; }

    /// <summary>Slots that can still be handed out.</summary>
    public int Available
    {
        get
        {
            lock (_lock)
            {
                return _free.Count;
            }
        }
    }

    /// <summary>The slots that are handed out, by index.</summary>
    public IReadOnlyList<StateSlot> Slots
    {
        get
        {
            lock (_lock)
            {
                return SlotsInUse();
            }
        }
    }

    /// <summary>How much memory the states take, and how much of it is in use.</summary>
    public StatePoolMemory Memory
    {
        get
        {
            long perSlot = (long)_sizes[0] * _sizes[1] * _sizes[2] * Dtype.ElementSize();
            return new StatePoolMemory(Layers, Capacity, Capacity - Available, perSlot * Capacity);
        }
    }

    /// <summary>The states of a layer, [slots, H, D, E]. The pool's own: it is not to be disposed.</summary>
    /// <param name="layer">0 to <see cref="Layers"/> - 1.</param>
    /// <exception cref="ArgumentOutOfRangeException">There is no such layer.</exception>
    /// <exception cref="ObjectDisposedException">The pool has been disposed.</exception>
    public Tensor this[int layer]
    {
        get
        {
            ArgumentOutOfRangeException.ThrowIfNegative(layer);
            ArgumentOutOfRangeException.ThrowIfGreaterThanOrEqual(layer, Layers);
            using Lock.Scope held = Enter();
            return _layers[layer];
        }
    }

    /// <summary>Hands out a slot with states of zeros.</summary>
    /// <exception cref="InvalidOperationException">Every slot is in use.</exception>
    /// <exception cref="ObjectDisposedException">The pool has been disposed.</exception>
    public StateSlot Allocate() => Allocate(1)[0];

    /// <summary>Hands out several slots with states of zeros, or none if too few are free.</summary>
    /// <param name="count">How many; they are set to zero together, by one operation per layer.</param>
    /// <exception cref="ArgumentOutOfRangeException">A negative count.</exception>
    /// <exception cref="InvalidOperationException">Fewer slots are free.</exception>
    /// <exception cref="ObjectDisposedException">The pool has been disposed.</exception>
    public StateSlot[] Allocate(int count)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(count);
        using Lock.Scope held = Enter();
        RequireFree(count);
        Zero([.. _free.Take(count)]);
        return [.. Enumerable.Range(0, count).Select(_ => Take())];
    }

    /// <summary>Hands out a slot with states of zeros, if there is one.</summary>
    /// <param name="slot">The slot; <c>default</c>, which every pool refuses, if there is none.</param>
    /// <returns>Whether there was one.</returns>
    /// <exception cref="ObjectDisposedException">The pool has been disposed.</exception>
    public bool TryAllocate(out StateSlot slot)
    {
        using Lock.Scope held = Enter();
        slot = default;
        if (!_free.TryPeek(out int index))
        {
            return false;
        }

        Zero([index]);
        slot = Take();
        return true;
    }

    /// <summary>Takes a slot back. Its states stay until it is handed out again.</summary>
    /// <param name="slot">A slot of this pool.</param>
    /// <exception cref="InvalidOperationException">It has been freed before, or is another pool's.</exception>
    /// <exception cref="ObjectDisposedException">The pool has been disposed.</exception>
    public void Free(StateSlot slot)
    {
        using Lock.Scope held = Enter();
        RequireInUse(slot);
        _inUse[slot.Index] = false;
        _free.Push(slot.Index);
    }

    /// <summary>Sets the states of a slot to zero in every layer.</summary>
    /// <param name="slot">A slot of this pool.</param>
    /// <exception cref="InvalidOperationException">It has been freed, or is another pool's.</exception>
    /// <exception cref="ObjectDisposedException">The pool has been disposed.</exception>
    public void Reset(StateSlot slot)
    {
        using Lock.Scope held = Enter();
        RequireInUse(slot);
        Zero([slot.Index]);
    }

    /// <summary>
    /// Hands out a slot with a copy of another one's states in every layer, as beam search and cached prefixes need it.
    /// </summary>
    /// <param name="slot">A slot of this pool.</param>
    /// <exception cref="InvalidOperationException">It has been freed or is another pool's, or every slot is in use.
    /// </exception>
    /// <exception cref="ObjectDisposedException">The pool has been disposed.</exception>
    public StateSlot Fork(StateSlot slot)
    {
        using Lock.Scope held = Enter();
        RequireInUse(slot);
        RequireFree(1);
        CopyStates(slot.Index, _free.Peek());
        return Take();
    }

    /// <summary>Copies the states of one slot over those of another in every layer.</summary>
    /// <param name="source">A slot of this pool.</param>
    /// <param name="target">Another one, or the same.</param>
    /// <exception cref="InvalidOperationException">One of them has been freed, or is another pool's.</exception>
    /// <exception cref="ObjectDisposedException">The pool has been disposed.</exception>
    public void Copy(StateSlot source, StateSlot target)
    {
        using Lock.Scope held = Enter();
        RequireInUse(source);
        RequireInUse(target);
        CopyStates(source.Index, target.Index);
    }

    /// <summary>
    /// What slot_idx of decoding and state_indices of packed sequences are for the rows of a batch: the slots' indices,
    /// -1 where there is none.
    /// </summary>
    /// <param name="slots">A slot of this pool for each row, or null for padding.</param>
    /// <returns>[B], int64, on the pool's device; the caller's.</returns>
    /// <exception cref="ArgumentException">Two rows have the same slot.</exception>
    /// <exception cref="InvalidOperationException">A slot has been freed, or is another pool's.</exception>
    /// <exception cref="ObjectDisposedException">The pool has been disposed.</exception>
    public Tensor Indices(params ReadOnlySpan<StateSlot?> slots)
    {
        using Lock.Scope held = Enter();
        var indices = new long[slots.Length];
        var seen = new HashSet<int>(slots.Length);
        for (int row = 0; row < slots.Length; row++)
        {
            indices[row] = -1;
            if (slots[row] is { } slot)
            {
                RequireInUse(slot);
                indices[row] = slot.Index;
                if (!seen.Add(slot.Index))
                {
                    throw new ArgumentException($"{slot} is that of row {row} and of one before it.", nameof(slots));
                }
            }
        }

        return OnDevice(indices);
    }

    /// <summary>
    /// Writes the slots that are handed out and their states, these in TorchSharp's own format: a tensor [H, D, E] for
    /// each slot and layer. Waits for the device.
    /// </summary>
    /// <param name="writer">Where to.</param>
    /// <exception cref="IOException">Writing failed.</exception>
    /// <exception cref="ObjectDisposedException">The pool has been disposed.</exception>
    public void Save(BinaryWriter writer)
    {
        ArgumentNullException.ThrowIfNull(writer);
        using Lock.Scope held = Enter();
        StateSlot[] slots = SlotsInUse();
        writer.Write(Encoding.ASCII.GetBytes(Title + '\n'));
        writer.Write(slots.Length);
        foreach (StateSlot slot in slots)
        {
            writer.Write(slot.Index);
            writer.Write(slot.Generation);
        }

        foreach (StateSlot slot in slots)
        {
            foreach (Tensor layer in _layers)
            {
                using Tensor state = layer.select(0, slot.Index);
                state.Save(writer);
            }
        }
    }

    /// <summary>The same into a file. One that exists is replaced when the new one is whole.</summary>
    /// <param name="path">The file.</param>
    /// <exception cref="IOException">Writing failed.</exception>
    /// <exception cref="UnauthorizedAccessException">The file must not be written.</exception>
    /// <exception cref="ObjectDisposedException">The pool has been disposed.</exception>
    public void Save(string path)
    {
        string temporary = path + ".tmp";
        using (var writer = new BinaryWriter(File.Create(temporary)))
        {
            Save(writer);
        }

        File.Move(temporary, path, overwrite: true);
    }

    /// <summary>
    /// Replaces the slots and states of this pool by saved ones: the handles of then are valid, and no others. Waits
    /// for the device.
    /// </summary>
    /// <param name="reader">Where from: what a pool of the same sizes and type has written.</param>
    /// <exception cref="InvalidDataException">It is not that. Where the list of slots is whole, no slot of this pool is
    /// in use afterwards; otherwise the pool is as before.</exception>
    /// <exception cref="IOException">Reading failed; the same holds.</exception>
    /// <exception cref="ObjectDisposedException">The pool has been disposed.</exception>
    public void Load(BinaryReader reader)
    {
        ArgumentNullException.ThrowIfNull(reader);
        using Lock.Scope held = Enter();
        try
        {
            StateSlot[] slots = ReadSlots(reader);
            Array.Clear(_inUse);
            FillFree();
            ReadStates(reader, slots);
            foreach (StateSlot slot in slots)
            {
                _inUse[slot.Index] = true;
                _generations[slot.Index] = slot.Generation;
            }

            FillFree();
        }
        catch (Exception error) when (error is EndOfStreamException or FormatException or ArgumentException)
        {
            throw new InvalidDataException($"The saved state pool is damaged: {error.Message}", error);
        }
    }

    /// <summary>The same from a file.</summary>
    /// <param name="path">The file.</param>
    /// <exception cref="InvalidDataException">It is not what a pool of the same sizes and type has saved.</exception>
    /// <exception cref="IOException">Reading failed.</exception>
    /// <exception cref="UnauthorizedAccessException">The file must not be read.</exception>
    /// <exception cref="ObjectDisposedException">The pool has been disposed.</exception>
    public void Load(string path)
    {
        using var reader = new BinaryReader(File.OpenRead(path));
        Load(reader);
    }

    /// <summary>Frees the states.</summary>
    public void Dispose()
    {
        lock (_lock)
        {
            _disposed = true;
            foreach (Tensor? layer in _layers)
            {
                layer?.Dispose();
            }
        }
    }

    /// <summary>The first line of a saved pool. It holds all that must agree, so that one comparison checks it.</summary>
    private string Title =>
        $"LightningAttn state pool 1: {Layers} layers, {Capacity} slots, {Check.Name(Dtype)} "
        + $"[{string.Join(", ", _sizes)}]";

    private Lock.Scope Enter()
    {
        Lock.Scope held = _lock.EnterScope();
        if (_disposed)
        {
            held.Dispose();
            throw new ObjectDisposedException(nameof(StatePool));
        }

        return held;
    }

    private void RequireInUse(StateSlot slot)
    {
        bool latest = slot.Generation != 0 && (uint)slot.Index < (uint)Capacity
            && _generations[slot.Index] == slot.Generation;
        if (!latest)
        {
            throw new InvalidOperationException(
                $"{slot} has been freed and handed out again, or is not of this pool of {Capacity} slots.");
        }

        if (!_inUse[slot.Index])
        {
            throw new InvalidOperationException($"{slot} has been freed.");
        }
    }

    private void RequireFree(int count)
    {
        if (count > _free.Count)
        {
            throw new InvalidOperationException(
                $"The pool has no room for {count} more: {Capacity - _free.Count} of {Capacity} slots are in use.");
        }
    }

    /// <summary>Comes after the work on the states, so that an error there leaves the slot free.</summary>
    private StateSlot Take()
    {
        int index = _free.Pop();
        _inUse[index] = true;
        _generations[index] = ++_generation;
        return new StateSlot(index, _generation);
    }

    /// <summary>The lowest index is handed out first.</summary>
    private void FillFree()
    {
        _free.Clear();
        for (int index = Capacity - 1; index >= 0; index--)
        {
            if (!_inUse[index])
            {
                _free.Push(index);
            }
        }
    }

    private StateSlot[] SlotsInUse() =>
        [.. Enumerable.Range(0, Capacity)
            .Where(index => _inUse[index])
            .Select(index => new StateSlot(index, _generations[index]))];

    private void Zero(ReadOnlySpan<int> indices)
    {
        using var noGrad = torch.no_grad();
        if (indices.Length == 1)
        {
            foreach (Tensor layer in _layers)
            {
                using Tensor state = layer.select(0, indices[0]);
                using Tensor zeroed = state.zero_();
            }
        }
        else if (indices.Length > 1)
        {
            // A scope and no using on the result: whether that is the layer itself is TorchSharp's affair.
            using var scope = torch.NewDisposeScope();
            Tensor chosen = OnDevice([.. indices.ToArray().Select(static index => (long)index)]);
            using Scalar zero = 0;
            foreach (Tensor layer in _layers)
            {
                layer.index_fill_(0, chosen, zero);
            }
        }
    }

    private void CopyStates(int source, int target)
    {
        if (source == target)
        {
            return;
        }

        using var noGrad = torch.no_grad();
        foreach (Tensor layer in _layers)
        {
            using Tensor from = layer.select(0, source);
            using Tensor to = layer.select(0, target);
            using Tensor copied = to.copy_(from);
        }
    }

    /// <summary>Copied from pinned memory: a copy from other memory waits for the device.</summary>
    private Tensor OnDevice(long[] indices)
    {
        if (Device.type == DeviceType.CPU)
        {
            return torch.tensor(indices, dtype: ScalarType.Int64);
        }

        using Tensor pageable = torch.tensor(indices, dtype: ScalarType.Int64);
        using Tensor pinned = pageable.pin_memory();
        return pinned.to(Device, non_blocking: true);
    }

    private static string ReadLine(BinaryReader reader)
    {
        const int MaxLength = 200;
        var line = new StringBuilder();
        for (char next; line.Length < MaxLength && (next = (char)reader.ReadByte()) != '\n';)
        {
            line.Append(next);
        }

        return line.ToString();
    }

    private StateSlot[] ReadSlots(BinaryReader reader)
    {
        string title = ReadLine(reader);
        if (title != Title)
        {
            throw new InvalidDataException(
                title.StartsWith(Title.Split(':')[0], StringComparison.Ordinal)
                    ? $"The saved pool is \"{title}\", this one \"{Title}\"."
                    : "The data is not a saved state pool.");
        }

        int count = reader.ReadInt32();
        if (count < 0 || count > Capacity)
        {
            throw new InvalidDataException($"The saved state pool is damaged: {count} of {Capacity} slots in use.");
        }

        var slots = new StateSlot[count];
        int last = -1;
        for (int i = 0; i < count; i++)
        {
            slots[i] = new StateSlot(reader.ReadInt32(), reader.ReadInt64());
            if (slots[i].Index <= last || slots[i].Index >= Capacity || slots[i].Generation == 0)
            {
                throw new InvalidDataException($"The saved state pool is damaged: {slots[i]} after slot {last}.");
            }

            last = slots[i].Index;
        }

        return slots;
    }

    private void ReadStates(BinaryReader reader, StateSlot[] slots)
    {
        using var noGrad = torch.no_grad();
        using Tensor state = torch.empty([.. _sizes.Select(static size => (long)size)], Dtype);

        // A tensor of TorchSharp's begins with its type, its dimensions and its shape. TorchSharp would allocate what
        // it reads there.
        long[] head = [(long)Dtype, _sizes.Length, .. _sizes];
        foreach (StateSlot slot in slots)
        {
            for (int layer = 0; layer < Layers; layer++)
            {
                foreach (long expected in head)
                {
                    if (reader.Read7BitEncodedInt64() != expected)
                    {
                        throw new InvalidDataException(
                            $"The saved state pool is damaged: the state of {slot} in layer {layer} has another shape.");
                    }
                }

                state.ReadBytesFromStream(reader.BaseStream);
                using Tensor target = _layers[layer].select(0, slot.Index);
                using Tensor copied = target.copy_(state);
            }
        }
    }
}
