using System.Text.Encodings.Web;
using System.Text.Json;

namespace LightningAttn.Benchmarks;

/// <summary>The table on the console and, beside it, one JSON object per line.</summary>
internal sealed class Report : IDisposable
{
    private const string Layout =
        "{0,-20} {1,-15} {2,-17} {3,10} {4,7} {5,8} {6,7} {7,7} {8,7} {9,9} {10,7} {11,14} {12,14} {13,9} {14,9} {15,9}"
        + " {16,15}";

    private const string Legend =
        """
        us        one call, median; * the device may have waited for the host
        spread    10th to 90th percentile, in percent of the median
        host us   until the call returns with its work queued
        x ours    time over that of ours without block states
        GB/s      the bytes behind the floor, over the time
        TFLOP/s   products of the chunked algorithm in chunks of 64, over the time: the same work for every variant
        floor us  every tensor read or written once at the copy rate; 'ours + states' writes its block states on top
        bar,      limits of 'ours' and whether they are met
        target
        err       largest relative RMS error of a head against the float64 recurrence: output, final state, gradients
        extra     MiB of the workspace that the library asks for (not measured), in percent of q, k, v and o
        """;

    private static readonly JsonSerializerOptions s_jsonOptions = new(JsonSerializerDefaults.Web)
    {
        Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping,
    };

    private readonly StreamWriter? _json;

    public Report(string? jsonFile) => _json = jsonFile is null ? null : new StreamWriter(jsonFile);

    /// <summary>The lines that a report wrote.</summary>
    /// <exception cref="JsonException">The file holds something else.</exception>
    public static IEnumerable<Line> Read(string jsonFile) =>
        File.ReadLines(jsonFile).Select(line => JsonSerializer.Deserialize<Line>(line, s_jsonOptions)!);

    public void Add(Machine machine)
    {
        Console.WriteLine($"command  {machine.Command}");
        Console.WriteLine($"device   {machine.Device}{(machine.Driver is { } driver ? $", driver {driver}" : "")}");
        Console.WriteLine($"copies   {machine.CopyGigabytesPerSecond:F1} GB/s, read + written");
        Console.WriteLine($"library  {machine.Library}");
        Console.WriteLine($"type     {machine.Type}");
        foreach (var kernel in machine.Kernels)
        {
            Console.WriteLine($"kernel   {kernel}");
        }

        Console.WriteLine();
        Console.WriteLine(Legend);
        Console.WriteLine();
        Console.WriteLine(
            Layout,
            "operation", "shape", "variant", "us", "spread", "host us", "x ours", "GB/s", "TFLOP/s", "floor us",
            "x floor", "bar us", "target us", "err out", "err state", "err grad", "extra MiB");
        Write(machine);
    }

    public void Add(Row row)
    {
        Console.WriteLine(
            Layout,
            row.Operation,
            row.Shape,
            row.Chunk is { } chunk ? $"{row.Variant} ({chunk})" : row.Variant,
            $"{row.Time.Microseconds:F1}{(row.Time.HostShows == true ? "*" : "")}",
            $"{row.Time.SpreadPercent:F1}%",
            $"{row.Time.HostMicroseconds:F1}",
            $"{row.TimesFirst:F2}",
            $"{row.GigabytesPerSecond:F0}",
            $"{row.TeraflopsPerSecond:F2}",
            $"{row.FloorMicroseconds:F1}",
            $"{row.TimesFloor:F2}",
            Judged(row.Limits?.BarMicroseconds, row.MeetsBar),
            Judged(row.Limits?.TargetMicroseconds, row.MeetsTarget),
            $"{row.Errors?.Output:E1}",
            $"{row.Errors?.State:E1}",
            $"{row.Errors?.Gradients?.Worst:E1}",
            row.ExtraBytes is { } bytes ? $"{bytes / 1048576.0:F1} ({row.ExtraPercent:F1}%)" : "");
        Write(row);
    }

    public void Add(MemoryRow row)
    {
        const double MiB = 1 << 20;
        Console.WriteLine(
            $"memory               {row.Shape,-15} tensors {row.TensorBytes / MiB:F0} MiB, peak {row.PeakBytes / MiB:F0} MiB, "
            + $"{row.TimesTensors:F3} x");
        Write(row);
    }

    public void Dispose() => _json?.Dispose();

    private static string Judged(double? limit, bool? isMet) =>
        limit is null ? "" : $"{limit:F1} {(isMet == true ? "pass" : "FAIL")}";

    private void Write(Line line)
    {
        _json?.WriteLine(JsonSerializer.Serialize(line, s_jsonOptions));
        _json?.Flush();
    }
}
