using LightningAttn.Interop;
using TorchSharp;
using static TorchSharp.torch;

namespace LightningAttn;

/// <summary>The argument checks of speculative decoding.</summary>
internal static partial class Check
{
    /// <summary>The most tokens of a row that one native call takes, LATTN_MAX_DECODE_TOKENS.</summary>
    internal const long MaxDraftTokens = 16;

    /// <summary>q and k [B, Td, Hk, D], v [B, Td, Hv, E]; q is null where there are no queries.</summary>
    internal static void Draft(Tensor? q, Tensor k, Tensor v)
    {
        const string Keys = "[B, Td, Hk, D]";
        const string DraftValues = "[B, Td, Hv, E]";
        Usable(k, nameof(k));
        Usable(v, nameof(v));
        Rank(k, nameof(k), Keys);
        if (k.dtype is not (ScalarType.Float32 or ScalarType.Float64 or ScalarType.BFloat16 or ScalarType.Float16))
        {
            throw Unexpected(k, nameof(k), "float16, bfloat16, float32 or float64");
        }

        if (k.device_type is not (DeviceType.CPU or DeviceType.CUDA))
        {
            throw new NotSupportedException($"k is {Text(k)}; cpu and cuda are the devices supported.");
        }

        if (k.size(1) is < 1 or > MaxDraftTokens || k.size(2) < 1 || k.size(3) < 1)
        {
            throw Unexpected(k, nameof(k), $"{Keys} with Td from 1 to {MaxDraftTokens}, Hk >= 1 and D >= 1");
        }

        if (q is not null)
        {
            Usable(q, nameof(q));
            Rank(q, nameof(q), Keys);
            SameTypeAs(q, nameof(q), k, nameof(k));
            SameDevice(q, nameof(q), k, nameof(k));
            for (int axis = 0; axis < 4; axis++)
            {
                if (q.size(axis) != k.size(axis))
                {
                    throw Unexpected(q, nameof(q), $"the shape of k, [{string.Join(", ", k.shape)}]");
                }
            }
        }

        Rank(v, nameof(v), DraftValues);
        SameTypeAs(v, nameof(v), k, nameof(k));
        SameDevice(v, nameof(v), k, nameof(k));
        if (v.size(0) != k.size(0) || v.size(1) != k.size(1) || v.size(3) < 1)
        {
            throw Unexpected(v, nameof(v), $"{DraftValues} = [{k.size(0)}, {k.size(1)}, Hv, E >= 1] as k has it");
        }

        if (v.size(2) < 1 || v.size(2) % k.size(2) != 0)
        {
            throw Unexpected(v, nameof(v), $"Hv to be a multiple of the {k.size(2)} heads of k");
        }

        if (k.device_type == DeviceType.CUDA)
        {
            if (k.dtype == ScalarType.Float64)
            {
                throw new NotSupportedException(
                    $"k is {Text(k)}: float64 is supported on the CPU alone; on CUDA float16, bfloat16 and float32 "
                    + "are.");
            }

            HeadDim(k, nameof(k), "D");
            HeadDim(v, nameof(v), "E");
        }
    }

    /// <summary>How many of <paramref name="tokens"/> tokens each row takes.</summary>
    internal static void Accepted(Tensor accepted, Tensor v, long tokens)
    {
        const string Name = "accepted";
        Usable(accepted, Name);
        if (accepted.dtype is not (ScalarType.Int32 or ScalarType.Int64))
        {
            throw Unexpected(accepted, Name, "int32 or int64");
        }

        if (accepted.dim() != 1 || accepted.size(0) != v.size(0))
        {
            throw Unexpected(accepted, Name, $"[B] = [{v.size(0)}], one number per row");
        }

        SameDevice(accepted, Name, v, nameof(v));
        if (accepted.device_type == DeviceType.CPU)
        {
            AcceptedRange(accepted, tokens);
        }
        else if (SlotDebugging.Enabled)
        {
            using Tensor copy = accepted.cpu();
            AcceptedRange(copy, tokens);
        }
    }

    /// <summary>Nothing of a call may ask for a gradient, which the function does not give.</summary>
    internal static void NotRecorded(string function, Tensor tensor, string name)
    {
        if (tensor.requires_grad)
        {
            throw new InvalidOperationException(
                $"{name} requires a gradient, but {function} gives none. Call it under no_grad, or detach {name}.");
        }
    }

    private static unsafe void AcceptedRange(Tensor accepted, long tokens)
    {
        nint data = TorchNative.Data(accepted);
        long stride = accepted.stride(0);
        bool wide = accepted.dtype == ScalarType.Int64;
        for (long row = 0; row < accepted.size(0); row++)
        {
            long count = wide ? ((long*)data)[row * stride] : ((int*)data)[row * stride];
            if (count < 0 || count > tokens)
            {
                throw new ArgumentException(
                    $"accepted is {count} for row {row}, expected 0 to {tokens}, the draft tokens of k.", "accepted");
            }
        }

        GC.KeepAlive(accepted);
    }

    private static void SameTypeAs(Tensor tensor, string name, Tensor other, string otherName)
    {
        if (tensor.dtype != other.dtype)
        {
            throw Unexpected(tensor, name, $"the type of {otherName}, {Name(other.dtype)}");
        }
    }
}
