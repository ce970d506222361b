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

    /// <summary>One on x's device.</summary>
    internal static SideStream Fork(Tensor x)
    {
        nint stream = TorchNative.CurrentStream(x);
        nint side;
        NativeStatus.ThrowIfFailed(NativeMethods.lattn_fork_stream(x.device_index, stream, &side));
        return new SideStream(x.device_index, stream, side);
    }

    /// <summary>Queues what libtorch is told in <paramref name="work"/> on this stream.</summary>
    internal Tensor Run(Func<Tensor> work)
    {
        nint guard = TorchNative.UseStream(_side, _device);
        try
        {
            return work();
        }
        finally
        {
            TorchNative.LeaveStream(guard);
        }
    }

    public void Dispose() => NativeStatus.ThrowIfFailed(NativeMethods.lattn_join_stream(_device, _stream, _side));
}
