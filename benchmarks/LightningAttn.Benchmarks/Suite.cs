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
        var type = options.ResolveType(device);
        random.manual_seed(1);
        var memory = options.ResolveShapes(device).Memory.Select(shape => TrainingMemory.Measure(shape, type, device)).ToList();
        var workloads = Workloads(options, device, type).ToList();
        foreach (var workload in workloads)
        {
            workload.Check();
        }

        using var timer = Timer.For(device, options.Samples);
        using var report = new Report(options.JsonFile);
        var machine = Describe(command, device, type, timer, workloads);
        report.Add(machine);
        memory.ForEach(report.Add);
        var rows = new List<Row>();
        foreach (var workload in workloads)
        {
            foreach (var row in workload.Measure(timer))
            {
                report.Add(row);
                rows.Add(row);
            }

            workload.Dispose();
        }

        if (options.ChartsFolder is { } folder)
        {
            Charts.Draw(machine, rows, folder);
        }
    }

    private static IEnumerable<IWorkload> Workloads(Options options, Device device, ScalarType type)
    {
        var compare = !options.NoCompare;
        var shapes = options.ResolveShapes(device);
        return
        [
            .. shapes.Forward.Select(shape => Sequence(shape, Pass.Forward)),
            .. shapes.Backward.Select(shape => Sequence(shape, Pass.ForwardBackward)),
            .. shapes.Backward.Select(shape => Sequence(shape, Pass.Backward)),
            .. shapes.Varlen.Select(shape => new VarlenWorkload(shape, type, device, options.Path)),
            .. shapes.Decode.SelectMany(shape => DecodeWorkload.Of(shape, type, device, compare)),
            .. shapes.Layer.Select(shape => new LayerWorkload(shape, type, device)),
        ];

        SequenceWorkload Sequence(Shape shape, Pass pass) => new(shape, type, device, compare, pass, options.Path);
    }

    private static Machine Describe(
        string command, Device device, ScalarType type, Timer timer, IEnumerable<IWorkload> workloads)
    {
        var isCuda = device.type == DeviceType.CUDA;
        var index = Math.Max(device.index, 0);
        return new Machine
        {
            Command = command,
            Device = isCuda ? CudaDriver.DeviceName(index) : $"CPU, {get_num_threads()} threads",
            Driver = isCuda ? CudaDriver.Version() : null,
            CopyGigabytesPerSecond = timer.CopyBytesPerSecond * 1e-9,
            Library = Native.BuildInfo,
            Type = type.ToString().ToLowerInvariant(),
            Kernels = workloads.SelectMany(workload => workload.KernelNames).Distinct().ToArray(),
        };
    }
}
