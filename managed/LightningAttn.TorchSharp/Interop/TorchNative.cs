using System.Runtime.InteropServices;
using TorchSharp;
using static TorchSharp.torch;

namespace LightningAttn.Interop;

/// <summary>What TorchSharp does not expose of libtorch: data pointers and CUDA streams.</summary>
internal static unsafe partial class TorchNative
{
    // The stable C ABI of libtorch, same names and signatures in every release since 2.5.
    private const string CurrentStreamExport = "aoti_torch_get_current_cuda_stream";
    private const string CreateGuardExport = "aoti_torch_create_cuda_stream_guard";
    private const string DeleteGuardExport = "aoti_torch_delete_cuda_stream_guard";

    private static readonly Lazy<nint> s_currentStream = new(static () => FindCuda(CurrentStreamExport));
    private static readonly Lazy<nint> s_createGuard = new(static () => FindCuda(CreateGuardExport));
    private static readonly Lazy<nint> s_deleteGuard = new(static () => FindCuda(DeleteGuardExport));

    static TorchNative() => NativeLibraryLoader.Register();

    /// <summary>Address of the first element, storage offset included; 0 for a tensor without elements.</summary>
    internal static nint Data(Tensor tensor) => THSTensor_data(tensor.Handle);

    /// <summary>The CUstream of libtorch's work for the device on this thread; 0 is the legacy default.</summary>
    internal static nint CurrentStream(Tensor tensor)
    {
        if (tensor.device_type != DeviceType.CUDA || s_currentStream.Value == 0)
        {
            return 0;
        }

        nint stream;
        int status = ((delegate* unmanaged<int, nint*, int>)s_currentStream.Value)(tensor.device_index, &stream);
        return status == 0
            ? stream
            : throw new LightningAttnException(
                $"libtorch gave no current CUDA stream for device {tensor.device_index} (status {status}).");
    }

    /// <summary>Whether this libtorch lets <see cref="UseStream"/> set its stream.</summary>
    internal static bool CanUseStreams => s_createGuard.Value != 0 && s_deleteGuard.Value != 0;

    /// <summary>
    /// Makes a stream the one of libtorch's work for the device on this thread, until what is returned is given to
    /// <see cref="LeaveStream"/>.
    /// </summary>
    internal static nint UseStream(nint stream, int deviceIndex)
    {
        nint guard;
        int status = ((delegate* unmanaged<nint, int, nint*, int>)s_createGuard.Value)(stream, deviceIndex, &guard);
        return status == 0
            ? guard
            : throw new LightningAttnException(
                $"libtorch did not take a CUDA stream for device {deviceIndex} (status {status}).");
    }

    /// <summary>Ends <see cref="UseStream"/>.</summary>
    internal static void LeaveStream(nint guard)
    {
        int status = ((delegate* unmanaged<nint, int>)s_deleteGuard.Value)(guard);
        if (status != 0)
        {
            throw new LightningAttnException($"libtorch did not leave a CUDA stream (status {status}).");
        }
    }

    /// <summary>A function of libtorch_cuda or, not on Windows, of what that is linked to; 0: there is none.</summary>
    internal static nint FindCuda(string name) =>
        NativeLibrary.TryLoad("torch_cuda", typeof(torch).Assembly, null, out nint library)
        && NativeLibrary.TryGetExport(library, name, out nint export)
            ? export
            : 0;

    [LibraryImport("LibTorchSharp")]
    private static partial nint THSTensor_data(nint tensor);
}
