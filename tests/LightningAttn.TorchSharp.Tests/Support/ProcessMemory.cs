using System.Diagnostics;
using System.Globalization;
using System.Runtime.InteropServices;

namespace LightningAttn.Tests.Support;

/// <summary>What a process holds, as one line of text and back.</summary>
/// <param name="ResidentBytes">The working set.</param>
/// <param name="ManagedBytes">Live objects of the managed heap.</param>
/// <param name="PeakTensors">The largest count of TorchSharp's tensors, as the caller saw it.</param>
/// <param name="ScopedTensors">Tensors that this thread's dispose scopes know and nobody has disposed.</param>
/// <param name="FreeDeviceBytes">Free memory of the CUDA device, 0 on the CPU.</param>
internal sealed record ProcessMemory(
    long ResidentBytes, long ManagedBytes, long PeakTensors, long ScopedTensors, long FreeDeviceBytes)
{
    private const string Prefix = "memory";

    /// <summary>After a full collection.</summary>
    internal static ProcessMemory Read(Device device, long peakTensors)
    {
        GC.Collect();
        GC.WaitForPendingFinalizers();
        long managed = GC.GetTotalMemory(forceFullCollection: true);
        using var process = Process.GetCurrentProcess();
        return new ProcessMemory(
            process.WorkingSet64,
            managed,
            peakTensors,
            DisposeScopeManager.Statistics.ThreadTotalLiveCount,
            device.type == DeviceType.CUDA ? FreeBytes() : 0);
    }

    internal string ToLine(int step) => string.Create(
        CultureInfo.InvariantCulture,
        $"{Prefix} {step} {ResidentBytes} {ManagedBytes} {PeakTensors} {ScopedTensors} {FreeDeviceBytes}");

    /// <inheritdoc/>
    public override string ToString() => string.Create(
        CultureInfo.InvariantCulture,
        $"resident {ResidentBytes / 1e6:f2} MB, managed {ManagedBytes / 1e3:f1} kB, tensors {PeakTensors} at most, "
        + $"{ScopedTensors} in scopes, free on the device {FreeDeviceBytes / 1e6:f2} MB");

    /// <summary>The lines of an output that hold such figures, by step.</summary>
    internal static SortedDictionary<int, ProcessMemory> FromLines(string output)
    {
        var all = new SortedDictionary<int, ProcessMemory>();
        foreach (string line in output.Split('\n'))
        {
            string[] parts = line.TrimEnd().Split(' ');
            if (parts[0] == Prefix)
            {
                long[] figures = [.. parts[2..].Select(static part => long.Parse(part, CultureInfo.InvariantCulture))];
                all[int.Parse(parts[1], CultureInfo.InvariantCulture)] =
                    new ProcessMemory(figures[0], figures[1], figures[2], figures[3], figures[4]);
            }
        }

        return all;
    }

    /// <summary>Of the device whose context libtorch has made current on this thread.</summary>
    private static unsafe long FreeBytes()
    {
        nint driver = NativeLibrary.Load(OperatingSystem.IsWindows() ? "nvcuda" : "libcuda.so.1");
        var getInfo = (delegate* unmanaged<nuint*, nuint*, int>)NativeLibrary.GetExport(driver, "cuMemGetInfo_v2");
        nuint free;
        nuint total;
        int status = getInfo(&free, &total);
        NativeLibrary.Free(driver);
        return status == 0 ? (long)free : throw new InvalidOperationException($"cuMemGetInfo: {status}");
    }
}
