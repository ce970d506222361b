using LightningAttn.Interop;
using TorchSharp;
using static TorchSharp.torch;

namespace LightningAttn;

/// <content>The arguments of packed batches.</content>
internal static partial class Check
{
    /// <summary>q, k [T, Hk, D] and v [T, Hv, E]: one type, one device, Hk divides Hv.</summary>
    internal static void PackedProjections(Tensor q, Tensor k, Tensor v)
    {
        const string Queries = "[T, Hk, D]";
        const string TheValues = "[T, Hv, E]";
        Usable(q, nameof(q));
        Usable(k, nameof(k));
        Usable(v, nameof(v));
        PackedRank(q, nameof(q), Queries);
        SupportedInput(q);
        if (q.size(1) < 1 || q.size(2) < 1)
        {
            throw Unexpected(q, nameof(q), "at least one head and D >= 1");
        }

        PackedRank(k, nameof(k), Queries);
        SameType(k, nameof(k), q);
        SameDevice(k, nameof(k), q, nameof(q));
        if (k.size(0) != q.size(0) || k.size(1) != q.size(1) || k.size(2) != q.size(2))
        {
            throw Unexpected(k, nameof(k), $"the shape of q, [{string.Join(", ", q.shape)}]");
        }

        PackedRank(v, nameof(v), TheValues);
        SameType(v, nameof(v), q);
        SameDevice(v, nameof(v), q, nameof(q));
        if (v.size(0) != q.size(0) || v.size(2) < 1)
        {
            throw Unexpected(v, nameof(v), $"{TheValues} = [{q.size(0)}, Hv, E >= 1] as q has it");
        }

        ValueHeads(q, v);
        if (q.device_type == DeviceType.CUDA)
        {
            Cuda(q, v);
        }
    }

    /// <summary>The offsets of a packed batch of <paramref name="tokens"/> tokens.</summary>
    internal static void Offsets(Tensor offsets, Tensor v, long tokens)
    {
        const string Name = "cu_seqlens";
        Usable(offsets, Name);
        IndexType(offsets, Name);
        if (offsets.dim() != 1 || offsets.size(0) < 1)
        {
            throw Unexpected(offsets, Name, "[n + 1], where each sequence begins and where the last one ends");
        }

        SameDevice(offsets, Name, v, nameof(v));
        if (Visible(offsets) is not { } values)
        {
            return;
        }

        long least = 0;
        for (int i = 0; i < values.Length; i++)
        {
            if (values[i] < least || values[i] > tokens)
            {
                string from = i == 0 ? "0" : $"cu_seqlens[{i - 1}] = {least}";
                throw new ArgumentException(
                    $"cu_seqlens[{i}] is {values[i]}, expected {from} to {tokens}: the offsets of {tokens} tokens do "
                    + "not decrease.",
                    Name);
            }

            least = values[i];
        }
    }

    /// <summary>The pool of a packed batch, and what goes with it; all null without one.</summary>
    internal static void PackedPool(
        Tensor? pool, Tensor? indices, Tensor? hasInitial, Tensor q, Tensor v, long sequences)
    {
        const string IndicesName = "state_indices";
        const string InitialName = "has_initial_state";
        if (pool is null)
        {
            WithoutPool(indices, IndicesName);
            WithoutPool(hasInitial, InitialName);
            return;
        }

        const string PoolName = "state_pool";
        DecodeState(pool, PoolName, "slots", rows: null, q, v);
        Writable(pool, PoolName);
        if (pool.size(0) < (indices is null ? Math.Max(sequences, 1) : 1))
        {
            throw Unexpected(
                pool,
                PoolName,
                indices is null ? $"a slot for each of {sequences} sequences, or state_indices" : "at least one slot");
        }

        if (indices is not null)
        {
            Usable(indices, IndicesName);
            IndexType(indices, IndicesName);
            PerSequence(indices, IndicesName, "slot", sequences);
            SameDevice(indices, IndicesName, v, nameof(v));
            StateIndices(indices, IndicesName, pool.size(0));
        }

        if (hasInitial is not null)
        {
            Usable(hasInitial, InitialName);
            if (hasInitial.dtype != ScalarType.Bool)
            {
                throw Unexpected(hasInitial, InitialName, "bool");
            }

            PerSequence(hasInitial, InitialName, "flag", sequences);
            SameDevice(hasInitial, InitialName, v, nameof(v));
        }
    }

    private static void StateIndices(Tensor indices, string name, long slotCount)
    {
        if (Visible(indices) is not { } slots)
        {
            return;
        }

        var users = new Dictionary<long, int>();
        for (int i = 0; i < slots.Length; i++)
        {
            if (slots[i] < -1 || slots[i] >= slotCount)
            {
                throw new ArgumentException(
                    $"{name}[{i}] is {slots[i]}, expected 0 to {slotCount - 1} (state_pool has {slotCount} slots) or "
                    + "-1 for padding.",
                    name);
            }

            if (slots[i] >= 0 && !users.TryAdd(slots[i], i))
            {
                throw new ArgumentException(
                    $"{name}[{users[slots[i]]}] and {name}[{i}] are both {slots[i]}, expected a slot of its own for "
                    + "every sequence.",
                    name);
            }
        }
    }

    /// <summary>
    /// The values of an index tensor where they can be seen without synchronising, or where that is asked for; else
    /// null.
    /// </summary>
    private static unsafe long[]? Visible(Tensor indices)
    {
        bool onCpu = indices.device_type == DeviceType.CPU;
        if (!onCpu && !SlotDebugging.Enabled)
        {
            return null;
        }

        using Tensor? copy = onCpu ? null : indices.cpu();
        Tensor source = copy ?? indices;
        nint data = TorchNative.Data(source);
        long stride = source.stride(0);
        bool wide = source.dtype == ScalarType.Int64;
        var values = new long[source.size(0)];
        for (int i = 0; i < values.Length; i++)
        {
            values[i] = wide ? ((long*)data)[i * stride] : ((int*)data)[i * stride];
        }

        GC.KeepAlive(source);
        return values;
    }

    private static void WithoutPool(Tensor? tensor, string name)
    {
        if (tensor is not null)
        {
            throw new ArgumentException($"{name} is given, expected null without state_pool.", name);
        }
    }

    private static void IndexType(Tensor tensor, string name)
    {
        if (tensor.dtype is not (ScalarType.Int32 or ScalarType.Int64))
        {
            throw Unexpected(tensor, name, "int32 or int64");
        }
    }

    private static void PerSequence(Tensor tensor, string name, string what, long sequences)
    {
        if (tensor.dim() != 1 || tensor.size(0) != sequences)
        {
            throw Unexpected(tensor, name, $"[n] = [{sequences}], one {what} per sequence of cu_seqlens");
        }
    }

    private static void PackedRank(Tensor tensor, string name, string shape)
    {
        if (tensor.dim() != 3)
        {
            throw Unexpected(tensor, name, $"rank 3, {shape}");
        }
    }
}
