using System.Diagnostics.CodeAnalysis;
using LightningAttn.Interop;
using TorchSharp;
using static TorchSharp.torch;

namespace LightningAttn;

/// <summary>
/// The argument checks of the public functions. Everything that is wrong with an argument is found here, with its name,
/// what it was and what it must be, before native code or autograd see it.
/// </summary>
internal static partial class Check
{
    private const long MinCudaHeadDim = 16;
    private const long MaxCudaHeadDim = 256;
    private const long CudaHeadDimStep = 8;

    /// <summary>Tokens of which a state block is a multiple.</summary>
    private const long BlockGranularity = 64;

    internal static void Attention(Tensor q, Tensor k, Tensor v, long blockSize, Tensor? history, double scale)
    {
        Projections(q, k, v, tokens: null);
        if (blockSize <= 0 || blockSize % BlockGranularity != 0)
        {
            throw new ArgumentException(
                $"block_size is {blockSize}, expected a positive multiple of {BlockGranularity}.", "block_size");
        }

        if (history is not null)
        {
            State(history, "kv_history", "B", v.size(0), q, v);
            ScalarType stateType = Kernels.StateType(v.dtype);
            if (history.dtype != stateType)
            {
                throw Unexpected(history, "kv_history", $"{Name(stateType)} for {Name(v.dtype)} inputs");
            }
        }

        Scale(scale);
    }

    internal static void Scale(double scale)
    {
        if (!double.IsFinite(scale))
        {
            throw new ArgumentException($"scale is {scale}, expected a finite number.", nameof(scale));
        }
    }

    internal static void Decode(Tensor q, Tensor k, Tensor v) => Projections(q, k, v, tokens: 1);

    /// <summary>A cache or a state of decoding, [rows, Hv, D, E].</summary>
    internal static void DecodeState(Tensor state, string name, string rowsLetter, long? rows, Tensor q, Tensor v)
    {
        State(state, name, rowsLetter, rows, q, v);
        bool wide = v.dtype == ScalarType.Float64;
        bool supported = wide
            ? state.dtype == ScalarType.Float64
            : state.dtype is ScalarType.Float32 or ScalarType.BFloat16 or ScalarType.Float16;
        if (!supported)
        {
            throw Unexpected(
                state,
                name,
                wide ? "float64 for float64 inputs" : $"float32, bfloat16 or float16 for {Name(v.dtype)} inputs");
        }
    }

    /// <summary>Tensors that are written must not have two elements at one address.</summary>
    internal static void Writable(Tensor tensor, string name)
    {
        for (int axis = 0; axis < tensor.dim(); axis++)
        {
            if (tensor.stride(axis) == 0 && tensor.size(axis) > 1)
            {
                throw new ArgumentException(
                    $"{name} is {Text(tensor)} with stride 0 on axis {axis}, expected a tensor that is not expanded: "
                    + "it is written in place.",
                    name);
            }
        }
    }

    /// <summary>A tensor for the output of decoding, [B, Hv * E].</summary>
    internal static void DecodeOutput(Tensor output, Tensor v)
    {
        const string Name = "output";
        Usable(output, Name);
        if (output.dim() != 2 || output.size(0) != v.size(0) || output.size(1) != v.size(1) * v.size(3))
        {
            throw Unexpected(output, Name, $"[B, Hv * E] = [{v.size(0)}, {v.size(1) * v.size(3)}]");
        }

        SameType(output, Name, v);
        SameDevice(output, Name, v, nameof(v));
        if (output.stride(1) != 1 && output.size(1) > 1)
        {
            throw Unexpected(output, Name, $"rows without gaps, not stride {output.stride(1)} on axis 1");
        }

        Writable(output, Name);
    }

    internal static void Slots(Tensor slots, Tensor v, long slotCount, string pool = "kv_caches")
    {
        const string Name = "slot_idx";
        Usable(slots, Name);
        if (slots.dtype is not (ScalarType.Int32 or ScalarType.Int64))
        {
            throw Unexpected(slots, Name, "int32 or int64");
        }

        if (slots.dim() != 1 || slots.size(0) != v.size(0))
        {
            throw Unexpected(slots, Name, $"[B] = [{v.size(0)}], one slot per row");
        }

        SameDevice(slots, Name, v, "v");
        if (slots.device_type == DeviceType.CPU)
        {
            SlotRange(slots, slotCount, pool);
        }
        else if (SlotDebugging.Enabled)
        {
            using Tensor copy = slots.cpu();
            SlotRange(copy, slotCount, pool);
        }
    }

    /// <summary>Not null, not disposed.</summary>
    internal static void Usable([NotNull] Tensor? tensor, string name)
    {
        ArgumentNullException.ThrowIfNull(tensor, name);
        if (tensor.IsInvalid)
        {
            throw new ObjectDisposedException(name, $"{name} has been disposed.");
        }
    }

    internal static void SameDevice(Tensor tensor, string name, Tensor other, string otherName)
    {
        if (tensor.device_type != other.device_type || tensor.device_index != other.device_index)
        {
            throw new ArgumentException(
                $"{name} is {Text(tensor)}, expected the device of {otherName}, {DeviceText(other)}.", name);
        }
    }

    internal static string Text(Tensor tensor) =>
        $"{Name(tensor.dtype)} [{string.Join(", ", tensor.shape)}] on {DeviceText(tensor)}";

    internal static string Name(ScalarType dtype) => dtype.ToString().ToLowerInvariant();

    /// <summary>q, k [B, Hk, N, D] and v [B, Hv, N, E]: one type, one device, Hk divides Hv.</summary>
    private static void Projections(Tensor q, Tensor k, Tensor v, long? tokens)
    {
        Usable(q, nameof(q));
        Usable(k, nameof(k));
        Usable(v, nameof(v));
        (string queries, string values) = tokens is null
            ? ("[B, Hk, N, D]", "[B, Hv, N, E]")
            : ("[B, Hk, 1, D]", "[B, Hv, 1, E]");
        Rank(q, nameof(q), queries);
        SupportedInput(q);
        if (tokens is { } count && q.size(2) != count)
        {
            throw Unexpected(q, nameof(q), queries);
        }

        if (q.size(1) < 1 || q.size(3) < 1)
        {
            throw Unexpected(q, nameof(q), "at least one head and D >= 1");
        }

        Rank(k, nameof(k), queries);
        SameType(k, nameof(k), q);
        SameDevice(k, nameof(k), q, nameof(q));
        for (int axis = 0; axis < 4; axis++)
        {
            if (k.size(axis) != q.size(axis))
            {
                throw Unexpected(k, nameof(k), $"the shape of q, [{string.Join(", ", q.shape)}]");
            }
        }

        Rank(v, nameof(v), values);
        SameType(v, nameof(v), q);
        SameDevice(v, nameof(v), q, nameof(q));
        if (v.size(0) != q.size(0) || v.size(2) != q.size(2) || v.size(3) < 1)
        {
            throw Unexpected(
                v, nameof(v), $"{values} = [{q.size(0)}, Hv, {q.size(2)}, E >= 1] as q has it");
        }

        ValueHeads(q, v);
        if (q.device_type == DeviceType.CUDA)
        {
            Cuda(q, v);
        }
    }

    private static void SupportedInput(Tensor q)
    {
        if (q.dtype is not (ScalarType.Float32 or ScalarType.Float64 or ScalarType.BFloat16 or ScalarType.Float16))
        {
            throw Unexpected(q, nameof(q), "float16, bfloat16, float32 or float64");
        }

        if (q.device_type is not (DeviceType.CPU or DeviceType.CUDA))
        {
            throw new NotSupportedException($"q is {Text(q)}; cpu and cuda are the devices supported.");
        }
    }

    private static void ValueHeads(Tensor q, Tensor v)
    {
        if (v.size(1) < 1 || v.size(1) % q.size(1) != 0)
        {
            throw Unexpected(v, nameof(v), $"Hv to be a multiple of the {q.size(1)} heads of q and k");
        }
    }

    private static void Cuda(Tensor q, Tensor v)
    {
        if (q.dtype == ScalarType.Float64)
        {
            throw new NotSupportedException(
                $"q is {Text(q)}: float64 is supported on the CPU alone; on CUDA float16, bfloat16 and float32 are.");
        }

        HeadDim(q, nameof(q), "D");
        HeadDim(v, nameof(v), "E");
    }

    private static void HeadDim(Tensor tensor, string name, string letter)
    {
        long size = tensor.size(-1);
        if (size is < MinCudaHeadDim or > MaxCudaHeadDim || size % CudaHeadDimStep != 0)
        {
            throw new NotSupportedException(
                $"{name} is {Text(tensor)}: {letter} = {size} is not supported on CUDA, multiples of {CudaHeadDimStep} "
                + $"from {MinCudaHeadDim} to {MaxCudaHeadDim} are.");
        }
    }

    private static void State(Tensor state, string name, string rowsLetter, long? rows, Tensor q, Tensor v)
    {
        Usable(state, name);
        if (state.dim() != 4)
        {
            throw Unexpected(state, name, $"rank 4, [{rowsLetter}, Hv, D, E]");
        }

        if ((rows is { } count && state.size(0) != count)
            || state.size(1) != v.size(1) || state.size(2) != q.size(-1) || state.size(3) != v.size(-1))
        {
            string first = rows?.ToString(System.Globalization.CultureInfo.InvariantCulture) ?? rowsLetter;
            throw Unexpected(
                state,
                name,
                $"[{rowsLetter}, Hv, D, E] = [{first}, {v.size(1)}, {q.size(-1)}, {v.size(-1)}]");
        }

        SameDevice(state, name, v, nameof(v));
    }

    private static void Rank(Tensor tensor, string name, string shape)
    {
        if (tensor.dim() != 4)
        {
            throw Unexpected(tensor, name, $"rank 4, {shape}");
        }
    }

    private static void SameType(Tensor tensor, string name, Tensor q)
    {
        if (tensor.dtype != q.dtype)
        {
            throw Unexpected(tensor, name, $"the type of q, {Name(q.dtype)}");
        }
    }

    private static unsafe void SlotRange(Tensor slots, long slotCount, string pool)
    {
        nint data = TorchNative.Data(slots);
        long stride = slots.stride(0);
        bool wide = slots.dtype == ScalarType.Int64;
        for (long row = 0; row < slots.size(0); row++)
        {
            long slot = wide ? ((long*)data)[row * stride] : ((int*)data)[row * stride];
            if (slot < -1 || slot >= slotCount)
            {
                throw new ArgumentException(
                    $"slot_idx is {slot} for row {row}, expected 0 to {slotCount - 1} ({pool} has {slotCount} "
                    + "slots) or -1 for padding.",
                    "slot_idx");
            }
        }

        GC.KeepAlive(slots);
    }

    internal static ArgumentException Unexpected(Tensor tensor, string name, string expected) =>
        new($"{name} is {Text(tensor)}, expected {expected}.", name);

    private static string DeviceText(Tensor tensor)
    {
        string type = tensor.device_type.ToString().ToLowerInvariant();
        return tensor.device_index < 0 || tensor.device_type == DeviceType.CPU ? type : $"{type}:{tensor.device_index}";
    }
}
