using System.Runtime.InteropServices;

namespace LightningAttn.Interop;

/// <summary>Turns a lattn_status into the exception that .NET callers expect for it.</summary>
internal static class NativeStatus
{
    private const int Ok = 0;
    private const int InvalidArgument = 1;
    private const int NotSupported = 2;
    private const int CudaError = 3;
    private const int OutOfMemory = 4;

    internal static void ThrowIfFailed(int status)
    {
        if (status != Ok)
        {
            throw ToException(status, Marshal.PtrToStringUTF8(NativeMethods.lattn_last_error()) ?? "");
        }
    }

    internal static Exception ToException(int status, string message) => status switch
    {
        InvalidArgument => new ArgumentException(message),
        NotSupported => new NotSupportedException(message),
        OutOfMemory => new InsufficientMemoryException(message),
        CudaError => new LightningAttnException($"CUDA: {message}"),
        _ => new LightningAttnException($"lightning_attn failed with status {status}: {message}"),
    };
}
