using TorchSharp;
using static TorchSharp.torch;

namespace LightningAttn.Interop;

/// <summary>
/// A second CUDA stream for libtorch's work that depends on nothing that the current stream is given meanwhile. It
/// begins where the current stream is at <see cref="Fork"/>, and the current stream waits for it from
/// <see cref="Dispose"/> on.
/// </summary>
internal readonly unsafe ref struct SideStream
{
    private readonly int _device;
    private readonly nint _stream;
    private readonly nint _side;

    private SideStream(int device, nint stream, nint side) => (_device, _stream, _side) = (device, stream, side);

    /// <summary>Whether x's device has them: on CUDA, with a libtorch that lets its stream be set.</summary>
    internal static bool IsSupported(Tensor x) => x.device_type == DeviceType.CUDA && TorchNative.CanUseStreams;

    /// <summary>Of x's device, CUDA, all.</summary>
    internal static int Multiprocessors(Tensor x)
    {
        int count;
        NativeStatus.ThrowIfFailed(NativeMethods.lattn_multiprocessor_count(x.device_index, &count));
        return count;
    }

    /// <summary>One on x's device.</summary>
    internal static SideStream Fork(Tensor x)
    {
        nint stream = TorchNative.CurrentStream(x);
        nint side;
        NativeStatus.ThrowIfFailed(NativeMethods.lattn_fork_stream(x.device_index, stream, &side));
        return new SideStream(x.device_index, stream, side);
    }

    /// <summary>Queues what libtorch is told in <paramref name="work"/> on this stream.</summary>
    /// <param name="work">What to do.</param>
    /// <param name="multiprocessors">How many cuBLAS is to choose its kernels for; 0: all of the device's.</param>
    internal Tensor Run(Func<Tensor> work, int multiprocessors = 0)
    {
        bool beside = _side != _stream; // a stream that is recorded into a graph has nothing beside it
        nint guard = TorchNative.UseStream(_side, _device);
        try
        {
            using BlasTarget target =
                beside && multiprocessors > 0 && BlasTarget.IsSupported ? BlasTarget.Set(multiprocessors) : default;
            return work();
        }
        finally
        {
            TorchNative.LeaveStream(guard);
        }
    }

    public void Dispose() => NativeStatus.ThrowIfFailed(NativeMethods.lattn_join_stream(_device, _stream, _side));
}
