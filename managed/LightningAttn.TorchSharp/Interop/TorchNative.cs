using System.Runtime.InteropServices;
using TorchSharp;
using static TorchSharp.torch;

namespace LightningAttn.Interop;

/// <summary>What TorchSharp does not expose of libtorch: data pointers and the current CUDA stream.</summary>
internal static unsafe partial class TorchNative
{
    /// <summary>The stable C ABI of libtorch, same name and signature in every release since 2.5.</summary>
    private const string CurrentStreamExport = "aoti_torch_get_current_cuda_stream";

    private static readonly Lazy<nint> s_currentStream = new(FindCurrentStream);

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

    private static nint FindCurrentStream() =>
        NativeLibrary.TryLoad("torch_cuda", typeof(torch).Assembly, null, out nint library)
        && NativeLibrary.TryGetExport(library, CurrentStreamExport, out nint export)
            ? export
            : 0;

    [LibraryImport("LibTorchSharp")]
    private static partial nint THSTensor_data(nint tensor);
}
