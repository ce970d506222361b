using System.Runtime.InteropServices;
using System.Text.RegularExpressions;

namespace LightningAttn.Benchmarks;

/// <summary>What TorchSharp does not offer of the CUDA driver: events, and the names of device and driver.</summary>
internal static unsafe partial class CudaDriver
{
    private const string Library = "nvcuda";
    private const string KernelModuleVersionFile = "/proc/driver/nvidia/version";
    private const int Success = 0;
    private const int NotReady = 600;

    static CudaDriver() => NativeLibrary.SetDllImportResolver(
        typeof(CudaDriver).Assembly,
        (name, _, _) => name == Library && !OperatingSystem.IsWindows() ? NativeLibrary.Load("libcuda.so.1") : 0);

    public static string DeviceName(int device)
    {
        const int NameBytes = 256;
        var name = stackalloc byte[NameBytes];
        Check(cuDeviceGetName(name, NameBytes, Ordinal(device)), nameof(cuDeviceGetName));
        return Marshal.PtrToStringUTF8((nint)name) ?? "";
    }

    /// <summary>"580.82.07, CUDA 13.0"; without the first part where the system does not tell it.</summary>
    public static string Version()
    {
        int version;
        Check(cuDriverGetVersion(&version), nameof(cuDriverGetVersion));
        var api = $"CUDA {version / 1000}.{version % 1000 / 10}";
        return File.Exists(KernelModuleVersionFile)
            ? $"{KernelModuleVersion().Match(File.ReadAllText(KernelModuleVersionFile))}, {api}"
            : api;
    }

    /// <summary>Events need a current context; libtorch makes its own current on each thread that uses it.</summary>
    public static void EnsureContext(int device)
    {
        nint context;
        Check(cuCtxGetCurrent(&context), nameof(cuCtxGetCurrent));
        if (context == 0)
        {
            Check(cuDevicePrimaryCtxRetain(&context, Ordinal(device)), nameof(cuDevicePrimaryCtxRetain));
            Check(cuCtxSetCurrent(context), nameof(cuCtxSetCurrent));
        }
    }

    /// <summary>Of the current device, whoever uses it.</summary>
    public static long FreeBytes()
    {
        nuint free, total;
        Check(cuMemGetInfo_v2(&free, &total), nameof(cuMemGetInfo_v2));
        return (long)free;
    }

    private static int Ordinal(int device)
    {
        int handle;
        Check(cuDeviceGet(&handle, device), nameof(cuDeviceGet));
        return handle;
    }

    /// <exception cref="InvalidOperationException">The driver reported an error.</exception>
    private static void Check(int status, string function)
    {
        if (status != Success)
        {
            byte* text = null;
            _ = cuGetErrorString(status, &text);
            throw new InvalidOperationException(
                $"{function}: {Marshal.PtrToStringUTF8((nint)text) ?? "unknown error"} ({status})");
        }
    }

    [GeneratedRegex(@"\d+(\.\d+)+")]
    private static partial Regex KernelModuleVersion();

    [LibraryImport(Library)]
    private static partial int cuGetErrorString(int error, byte** text);

    [LibraryImport(Library)]
    private static partial int cuDriverGetVersion(int* version);

    [LibraryImport(Library)]
    private static partial int cuDeviceGet(int* device, int ordinal);

    [LibraryImport(Library)]
    private static partial int cuDeviceGetName(byte* name, int bytes, int device);

    [LibraryImport(Library)]
    private static partial int cuDevicePrimaryCtxRetain(nint* context, int device);

    [LibraryImport(Library)]
    private static partial int cuCtxGetCurrent(nint* context);

    [LibraryImport(Library)]
    private static partial int cuCtxSetCurrent(nint context);

    [LibraryImport(Library)]
    private static partial int cuMemGetInfo_v2(nuint* free, nuint* total);

    [LibraryImport(Library)]
    private static partial int cuEventCreate(nint* created, uint flags);

    [LibraryImport(Library)]
    private static partial int cuEventRecord(nint recorded, nint stream);

    [LibraryImport(Library)]
    private static partial int cuEventQuery(nint queried);

    [LibraryImport(Library)]
    private static partial int cuEventSynchronize(nint awaited);

    [LibraryImport(Library)]
    private static partial int cuEventElapsedTime(float* milliseconds, nint start, nint end);

    [LibraryImport(Library)]
    private static partial int cuEventDestroy_v2(nint destroyed);

    /// <summary>A point of a stream and the time at which the device reached it.</summary>
    internal sealed class Event : IDisposable
    {
        private readonly nint _handle;

        public Event()
        {
            nint created;
            Check(cuEventCreate(&created, 0), nameof(cuEventCreate));
            _handle = created;
        }

        /// <summary>Whether the device has reached the recorded point.</summary>
        public bool IsReached
        {
            get
            {
                var status = cuEventQuery(_handle);
                if (status != NotReady)
                {
                    Check(status, nameof(cuEventQuery));
                }

                return status == Success;
            }
        }

        public void Record(nint stream) => Check(cuEventRecord(_handle, stream), nameof(cuEventRecord));

        /// <summary>Waits until the device has reached the recorded point.</summary>
        public void Synchronize() => Check(cuEventSynchronize(_handle), nameof(cuEventSynchronize));

        /// <summary>Both events must have been reached.</summary>
        public double MicrosecondsSince(Event start)
        {
            float milliseconds;
            Check(cuEventElapsedTime(&milliseconds, start._handle, _handle), nameof(cuEventElapsedTime));
            return milliseconds * 1e3;
        }

        public void Dispose() => _ = cuEventDestroy_v2(_handle);
    }
}
