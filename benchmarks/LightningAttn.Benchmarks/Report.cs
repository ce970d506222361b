using System.Text.Encodings.Web;
using System.Text.Json;
using TorchSharp;
using static TorchSharp.torch;

namespace LightningAttn.Benchmarks;

/// <summary>The table on the console and, beside it, one JSON object per row.</summary>
internal sealed class Report : IDisposable
{
    private const string Layout = "{0,-18} {1,-9} {2,-15} {3,10} {4,9} {5,8} {6,7} {7,16} {8,9} {9,11} {10,9} {11,9}";

    private static readonly JsonSerializerOptions s_jsonOptions = new(JsonSerializerDefaults.Web)
    {
        Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping,
    };

    private readonly StreamWriter? _json;

    public Report(string? jsonFile) => _json = jsonFile is null ? null : new StreamWriter(jsonFile);

    public void Head(string command, Device device, double copyBytesPerSecond)
    {
        var threads = device.type == DeviceType.CPU ? $", {get_num_threads()} threads" : "";
        Console.WriteLine($"command  {command}");
        Console.WriteLine($"library  {Native.BuildInfo}");
        Console.WriteLine($"device   {device}{threads}, copies {copyBytesPerSecond * 1e-9:F1} GB/s (read + written)");
        Console.WriteLine();
        Console.WriteLine(
            Layout,
            "operation", "type", "shape", "time us", "host us", "GB/s", "x copy", "torch us (chunk)", "speed-up",
            "softmax us", "error", "torch err");
    }

    public void Add(Row row)
    {
        Console.WriteLine(
            Layout,
            row.Operation,
            row.Type,
            row.Shape,
            $"{row.Time.Microseconds:F1}",
            $"{row.Time.HostMicroseconds:F1}",
            $"{row.GigabytesPerSecond:F1}",
            $"{row.TimesCopy:F2}",
            row.TorchChunk is { } chunk ? $"{row.Torch?.Microseconds:F1} ({chunk})" : $"{row.Torch?.Microseconds:F1}",
            $"{row.SpeedUp:F2}",
            $"{row.Softmax?.Microseconds:F1}",
            $"{row.Error:E1}",
            $"{row.TorchError:E1}");
        _json?.WriteLine(JsonSerializer.Serialize(row, s_jsonOptions));
        _json?.Flush();
    }

    public void Dispose() => _json?.Dispose();
}
