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
/// <see cref="Save(BinaryWriter)"/> and <see cref="Load"/> wait for the device, and on CUDA <see cref="Indices"/> for
/// the copy of the indices; nothing else does. No gradients are recorded.
/// </remarks>
public sealed class StatePool : IDisposable
{
    private const string Magic = "LightningAttn state pool 1";

    private readonly object _lock = new();
    private readonly Tensor[] _layers;
    private readonly int[] _generations;
    private readonly bool[] _inUse;
    private readonly Stack<int> _free;
    private bool _disposed;

    /// <summary>A pool of zeros with every slot free.</summary>
    /// <param name="layers">Tensors; at least 1.</param>
    /// <param name="slots">Requests that fit; at least 1.</param>
    /// <param name="heads">H, value heads; at least 1.</param>
    /// <param name="head_dim_qk">D; at least 1.</param>
    /// <param name="head_dim_v">E; at least 1.</param>
    /// <param name="dtype">float32, bfloat16 or float16.</param>
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
        if (dtype is not (ScalarType.Float32 or ScalarType.BFloat16 or ScalarType.Float16))
        {
            throw new ArgumentException(
                $"dtype is {Check.Name(dtype)}, expected float32, bfloat16 or float16.", nameof(dtype));
        }

        (Heads, HeadDimQk, HeadDimV, Dtype, Device) = (heads, head_dim_qk, head_dim_v, dtype, device ?? torch.CPU);
        using var noGrad = torch.no_grad();
        _layers = new Tensor[layers];
        for (int layer = 0; layer < layers; layer++)
        {
            _layers[layer] = torch.zeros([slots, heads, head_dim_qk, head_dim_v], dtype, Device)
                .DetachFromDisposeScope();
        }

        _generations = new int[slots];
        _inUse = new bool[slots];
        _free = new Stack<int>(Enumerable.Range(0, slots).Reverse());
    }

    /// <summary>Number of layers.</summary>
    public int Layers => _layers.Length;

    /// <summary>Slots, handed out or not.</summary>
    public int Capacity => _inUse.Length;

    /// <summary>H.</summary>
    public int Heads { get; }

    /// <summary>D.</summary>
    public int HeadDimQk { get; }

    /// <summary>E.</summary>
    public int HeadDimV { get; }

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
                return [.. Used().Select(HandleOf)];
            }
        }
    }

    /// <summary>How much memory the states take.</summary>
    public StatePoolMemory Memory
    {
        get
        {
            long perSlot = (long)Heads * HeadDimQk * HeadDimV * Dtype.ElementSize();
            long perLayer = perSlot * Capacity;
            return new StatePoolMemory(perLayer, perLayer * Layers, perSlot * (Capacity - Available) * Layers);
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
            ObjectDisposedException.ThrowIf(_disposed, this);
            return _layers[layer];
        }
    }

    /// <summary>Hands out a slot with states of zeros.</summary>
    /// <exception cref="InvalidOperationException">Every slot is in use.</exception>
    /// <exception cref="ObjectDisposedException">The pool has been disposed.</exception>
    public StateSlot Allocate() =>
        TryAllocate(out StateSlot slot) ? slot : throw Full();

    /// <summary>The same, where a full pool is no error.</summary>
    /// <param name="slot">The slot, if there was one.</param>
    /// <returns>Whether there was one.</returns>
    /// <exception cref="ObjectDisposedException">The pool has been disposed.</exception>
    public bool TryAllocate(out StateSlot slot)
    {
        lock (_lock)
        {
            bool taken = TryTake(out slot);
            if (taken)
            {
                Zero(slot.Index);
            }

            return taken;
        }
    }

    /// <summary>Takes a slot back. Its states stay until it is handed out again.</summary>
    /// <param name="slot">A slot of this pool.</param>
    /// <exception cref="InvalidOperationException">It has been freed before.</exception>
    /// <exception cref="ObjectDisposedException">The pool has been disposed.</exception>
    public void Free(StateSlot slot)
    {
        lock (_lock)
        {
            Require(slot);
            _inUse[slot.Index] = false;
            _free.Push(slot.Index);
        }
    }

    /// <summary>Sets the states of a slot to zero in every layer.</summary>
    /// <param name="slot">A slot of this pool.</param>
    /// <exception cref="InvalidOperationException">It has been freed.</exception>
    /// <exception cref="ObjectDisposedException">The pool has been disposed.</exception>
    public void Reset(StateSlot slot)
    {
        lock (_lock)
        {
            Require(slot);
            Zero(slot.Index);
        }
    }

    /// <summary>Hands out a slot with a copy of another one's states, as beam search and cached prefixes need it.
    /// </summary>
    /// <param name="slot">A slot of this pool.</param>
    /// <exception cref="InvalidOperationException">It has been freed, or every slot is in use.</exception>
    /// <exception cref="ObjectDisposedException">The pool has been disposed.</exception>
    public StateSlot Fork(StateSlot slot)
    {
        lock (_lock)
        {
            Require(slot);
            if (!TryTake(out StateSlot fork))
            {
                throw Full();
            }

            CopyStates(slot.Index, fork.Index);
            return fork;
        }
    }

    /// <summary>Copies the states of one slot over those of another.</summary>
    /// <param name="source">A slot of this pool.</param>
    /// <param name="target">Another one, or the same.</param>
    /// <exception cref="InvalidOperationException">One of them has been freed.</exception>
    /// <exception cref="ObjectDisposedException">The pool has been disposed.</exception>
    public void Copy(StateSlot source, StateSlot target)
    {
        lock (_lock)
        {
            Require(source);
            Require(target);
            CopyStates(source.Index, target.Index);
        }
    }

    /// <summary>What slot_idx is for the rows of a batch: the slots' indices, -1 where there is none.</summary>
    /// <param name="slots">A slot of this pool for each row, or null for padding.</param>
    /// <returns>[B], int64, on the pool's device; the caller's.</returns>
    /// <exception cref="InvalidOperationException">A slot has been freed.</exception>
    /// <exception cref="ObjectDisposedException">The pool has been disposed.</exception>
    public Tensor Indices(params ReadOnlySpan<StateSlot?> slots)
    {
        var indices = new long[slots.Length];
        lock (_lock)
        {
            ObjectDisposedException.ThrowIf(_disposed, this);
            for (int row = 0; row < slots.Length; row++)
            {
                indices[row] = -1;
                if (slots[row] is { } slot)
                {
                    Require(slot);
                    indices[row] = slot.Index;
                }
            }
        }

        return torch.tensor(indices, device: Device);
    }

    /// <summary>
    /// Writes the pool's sizes, its handles, and the states of the slots that are handed out, these in TorchSharp's own
    /// format. Waits for the device.
    /// </summary>
    /// <param name="writer">Where to.</param>
    /// <exception cref="IOException">Writing failed.</exception>
    /// <exception cref="ObjectDisposedException">The pool has been disposed.</exception>
    public void Save(BinaryWriter writer)
    {
        ArgumentNullException.ThrowIfNull(writer);
        lock (_lock)
        {
            ObjectDisposedException.ThrowIf(_disposed, this);
            writer.Write(Magic);
            foreach (int size in new[] { Layers, Capacity, Heads, HeadDimQk, HeadDimV, (int)Dtype })
            {
                writer.Write(size);
            }

            for (int index = 0; index < Capacity; index++)
            {
                writer.Write(_inUse[index]);
                writer.Write(_generations[index]);
            }

            using var scope = torch.NewDisposeScope();
            Tensor used = UsedIndices();
            foreach (Tensor layer in _layers)
            {
                layer.index_select(0, used).cpu().Save(writer);
            }
        }
    }

    /// <summary>A pool as <see cref="Save(BinaryWriter)"/> wrote it; the handles of then are valid in it.</summary>
    /// <param name="reader">Where from.</param>
    /// <param name="device">Where the states are to be: the CPU where it is left out.</param>
    /// <exception cref="InvalidDataException">It is not what Save writes.</exception>
    /// <exception cref="IOException">Reading failed.</exception>
    public static StatePool Load(BinaryReader reader, Device? device = null)
    {
        ArgumentNullException.ThrowIfNull(reader);
        StatePool? pool = null;
        try
        {
            if (reader.ReadString() != Magic)
            {
                throw new InvalidDataException("The data is not a saved state pool.");
            }

            int[] sizes = [.. Enumerable.Range(0, 6).Select(_ => reader.ReadInt32())];
            pool = new StatePool(
                sizes[0], sizes[1], sizes[2], sizes[3], sizes[4], (ScalarType)sizes[5], device);
            pool.Read(reader);
            return pool;
        }
        catch (Exception error) when (error is ArgumentException or EndOfStreamException or FormatException)
        {
            pool?.Dispose();
            throw new InvalidDataException($"The saved state pool is damaged: {error.Message}", error);
        }
        catch
        {
            pool?.Dispose();
            throw;
        }
    }

    /// <summary>Frees the states.</summary>
    public void Dispose()
    {
        lock (_lock)
        {
            _disposed = true;
            foreach (Tensor layer in _layers)
            {
                layer.Dispose();
            }
        }
    }

    private void Read(BinaryReader reader)
    {
        _free.Clear();
        for (int index = 0; index < Capacity; index++)
        {
            _inUse[index] = reader.ReadBoolean();
            _generations[index] = reader.ReadInt32();
        }

        foreach (int index in Enumerable.Range(0, Capacity).Reverse().Where(index => !_inUse[index]))
        {
            _free.Push(index);
        }

        using var noGrad = torch.no_grad();
        using var scope = torch.NewDisposeScope();
        Tensor used = UsedIndices();
        foreach (Tensor layer in _layers)
        {
            Tensor states = Tensor.Load(reader);
            long[] expected = [used.size(0), Heads, HeadDimQk, HeadDimV];
            if (states.dtype != Dtype || !states.shape.SequenceEqual(expected))
            {
                throw new InvalidDataException(
                    $"The saved state pool is damaged: states {Check.Text(states)}, expected {Check.Name(Dtype)} "
                    + $"[{string.Join(", ", expected)}].");
            }

            layer.index_copy_(0, used, states.to(Device));
        }
    }

    private IEnumerable<int> Used() => Enumerable.Range(0, Capacity).Where(index => _inUse[index]);

    private InvalidOperationException Full() => new($"All {Capacity} slots of the pool are in use.");

    private StateSlot HandleOf(int index) => new(index, _generations[index]);

    private bool TryTake(out StateSlot slot)
    {
        ObjectDisposedException.ThrowIf(_disposed, this);
        slot = default;
        if (!_free.TryPop(out int index))
        {
            return false;
        }

        _inUse[index] = true;
        _generations[index]++;
        slot = HandleOf(index);
        return true;
    }

    private void Require(StateSlot slot)
    {
        ObjectDisposedException.ThrowIf(_disposed, this);
        if ((uint)slot.Index >= (uint)Capacity || slot.Generation < 1 || slot.Generation > _generations[slot.Index])
        {
            throw new InvalidOperationException($"{slot} is not of this pool of {Capacity} slots.");
        }

        if (slot.Generation < _generations[slot.Index] || !_inUse[slot.Index])
        {
            throw new InvalidOperationException($"{slot} has been freed.");
        }
    }

    private void Zero(int index)
    {
        using var noGrad = torch.no_grad();
        foreach (Tensor layer in _layers)
        {
            using Tensor state = layer.select(0, index);
            using Tensor zeroed = state.zero_();
        }
    }

    private void CopyStates(int source, int target)
    {
        using var noGrad = torch.no_grad();
        foreach (Tensor layer in _layers)
        {
            using Tensor from = layer.select(0, source);
            using Tensor to = layer.select(0, target);
            using Tensor copied = to.copy_(from);
        }
    }

    /// <summary>[slots in use], int64, on the pool's device. To be called inside a dispose scope.</summary>
    private Tensor UsedIndices()
    {
        long[] used = [.. Used().Select(static index => (long)index)];
        return torch.tensor(used, dtype: ScalarType.Int64, device: Device);
    }
}
