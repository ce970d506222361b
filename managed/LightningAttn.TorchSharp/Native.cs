using System.Runtime.InteropServices;
using LightningAttn.Interop;
using TorchSharp;

namespace LightningAttn;

/// <summary>What can be asked of the native library itself.</summary>
public static class Native
{
    private static volatile Exception? s_lastBackwardError;

    /// <summary>
    /// The native build as <c>key=value</c> pairs separated by semicolons: version, compiler, CUDA toolkit
    /// (<c>cuda=none</c> without), GPU architectures, the CPU instruction set in use.
    /// </summary>
    /// <exception cref="DllNotFoundException">The native library is missing.</exception>
    public static string BuildInfo => Marshal.PtrToStringUTF8(NativeMethods.lattn_build_info()) ?? "";

    /// <summary>
    /// The cause of the latest backward pass that failed inside this library, on any thread; null if none has. A
    /// managed exception cannot cross libtorch: <c>backward()</c> throws an ExternalException about an invalid gradient
    /// instead, and the cause is found here. It is also written to <see cref="System.Diagnostics.Trace"/>.
    /// </summary>
    public static Exception? LastBackwardError
    {
        get => s_lastBackwardError;
        internal set => s_lastBackwardError = value;
    }

    /// <summary>
    /// The name of the kernel that a call with such tensors would run, under torch's present setting for tf32.
    /// </summary>
    /// <param name="operation">The operation asked about.</param>
    /// <param name="dtype">Type of q, k and v.</param>
    /// <param name="device">Device of the tensors.</param>
    /// <param name="head_dim_qk">D, the size of a query/key head.</param>
    /// <param name="head_dim_v">E, the size of a value head.</param>
    /// <param name="state_dtype">Type of the cache, for <see cref="Operation.Decode"/>; float32 (float64 for float64)
    /// when not given.</param>
    /// <exception cref="NotSupportedException">No kernel of this build serves such a call on this device; the message
    /// says what is missing.</exception>
    /// <exception cref="ArgumentException">A value is wrong in itself.</exception>
    /// <exception cref="DllNotFoundException">The native library is missing.</exception>
    public static string Describe(
        Operation operation,
        torch.ScalarType dtype,
        torch.Device device,
        long head_dim_qk,
        long head_dim_v,
        torch.ScalarType? state_dtype = null)
    {
        ArgumentNullException.ThrowIfNull(device);
        return Kernels.Describe(
            operation,
            dtype,
            state_dtype ?? Kernels.StateType(dtype),
            device.type,
            Math.Max(device.index, 0),
            head_dim_qk,
            head_dim_v);
    }

    /// <summary>
    /// Waits for all work queued on a CUDA device and throws the errors that kernels met meanwhile. No operator calls
    /// it; it is for tests and benchmarks, since <c>torch.cuda.synchronize()</c> reports no errors. Returns at once for
    /// the CPU.
    /// </summary>
    /// <param name="device">The device to wait for.</param>
    /// <exception cref="LightningAttnException">The CUDA driver reported an error.</exception>
    /// <exception cref="DllNotFoundException">The native library is missing.</exception>
    public static void Synchronize(torch.Device device)
    {
        ArgumentNullException.ThrowIfNull(device);
        if (device.type == DeviceType.CUDA)
        {
            NativeStatus.ThrowIfFailed(NativeMethods.lattn_synchronize(Math.Max(device.index, 0)));
        }
    }
}
