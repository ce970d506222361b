using TorchSharp;
using static TorchSharp.torch;

namespace LightningAttn.Benchmarks;

/// <summary>Checks every workload, then measures every workload.</summary>
internal static class Suite
{
    /// <exception cref="GateException">A result is wrong; nothing was printed.</exception>
    public static void Run(Options options, string command)
    {
        var device = options.ResolveDevice();
        var workloads = Workloads(options, device).ToList();

        random.manual_seed(1);
        foreach (var workload in workloads)
        {
            workload.Check();
        }

        var timer = new Timer(device, options.Samples);
        var copyBytesPerSecond = MeasureCopy(timer, device);
        using var report = new Report(options.JsonFile);
        report.Head(command, device, copyBytesPerSecond);
        foreach (var workload in workloads)
        {
            report.Add(workload.Measure(timer, copyBytesPerSecond));
        }
    }

    private static IEnumerable<Workload> Workloads(Options options, Device device)
    {
        var compare = !options.NoCompare;
        foreach (var type in options.ResolveTypes(device))
        {
            foreach (var shape in options.ResolveShapes(device))
            {
                yield return new SequenceWorkload("forward", shape, type, device, compare, false, false);
                yield return new SequenceWorkload("forward + states", shape, type, device, compare, true, false);
                yield return new SequenceWorkload("forward + backward", shape, type, device, compare, false, true);
            }

            foreach (var shape in options.ResolveDecodeShapes(device))
            {
                yield return new DecodeWorkload(shape, type, device, compare);
            }
        }
    }

    private static double MeasureCopy(Timer timer, Device device)
    {
        var bytes = device.type == DeviceType.CUDA ? 1L << 30 : 1L << 28;
        using var source = zeros(bytes, uint8, device);
        using var target = zeros(bytes, uint8, device);
        return 2 * bytes / (timer.Measure(_ => target.copy_(source)).Microseconds * 1e-6);
    }
}
