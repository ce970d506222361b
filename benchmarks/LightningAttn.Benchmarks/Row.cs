using System.Text.Json.Serialization;

namespace LightningAttn.Benchmarks;

/// <summary>One line of the JSON file: first the machine, then the measured rows.</summary>
[JsonPolymorphic(TypeDiscriminatorPropertyName = "kind")]
[JsonDerivedType(typeof(Machine), "machine")]
[JsonDerivedType(typeof(Row), "row")]
[JsonDerivedType(typeof(MemoryRow), "memory")]
internal abstract record Line;

/// <summary>Where, with what and by which command the rows were measured.</summary>
internal sealed record Machine : Line
{
    public required string Command { get; init; }

    public required string Device { get; init; }

    /// <summary>Of the GPU; null on the CPU.</summary>
    public required string? Driver { get; init; }

    /// <summary>Read plus written.</summary>
    public required double CopyGigabytesPerSecond { get; init; }

    /// <summary><see cref="Native.BuildInfo"/>.</summary>
    public required string Library { get; init; }

    /// <summary>Type of q, k and v.</summary>
    public required string Type { get; init; }

    /// <summary>Of this library, for each operation.</summary>
    public required string[] Kernels { get; init; }
}

/// <summary>Device memory of one forward + backward pass.</summary>
internal sealed record MemoryRow : Line
{
    public required Shape Shape { get; init; }

    /// <summary>Of q, k, v, the output, its gradient, dq, dk and dv.</summary>
    public required long TensorBytes { get; init; }

    /// <summary>The most that libtorch took from the driver, these tensors included.</summary>
    public required long PeakBytes { get; init; }

    public double TimesTensors => (double)PeakBytes / TensorBytes;
}

/// <summary>One variant on one shape, as the table and the JSON lines show it.</summary>
internal sealed record Row : Line
{
    public required string Operation { get; init; }

    public required Shape Shape { get; init; }

    public required string Variant { get; init; }

    public required int? Chunk { get; init; }

    /// <summary>The kernels, where they are of this library.</summary>
    public required string? Kernel { get; init; }

    public required Timing Time { get; init; }

    public required Work Work { get; init; }

    public required double FloorMicroseconds { get; init; }

    /// <summary>Null where none are set.</summary>
    public required Limits? Limits { get; init; }

    /// <summary>Null where the float64 recurrence is not what is computed.</summary>
    public required Errors? Errors { get; init; }

    /// <summary>Device memory of a call beyond inputs and results; null where it is not known.</summary>
    public required long? ExtraBytes { get; init; }

    /// <summary>Of q, k, v and o together.</summary>
    public required long TensorBytes { get; init; }

    /// <summary>Time over the time of the first variant, ours without block states.</summary>
    public required double TimesFirst { get; init; }

    public double GigabytesPerSecond => Work.Bytes / (Time.Microseconds * 1e3);

    public double TeraflopsPerSecond => Work.Operations / (Time.Microseconds * 1e6);

    public double TimesFloor => Time.Microseconds / FloorMicroseconds;

    public double? ExtraPercent => 100.0 * ExtraBytes / TensorBytes;

    public bool? MeetsBar => Limits is { } limits ? Time.Microseconds <= limits.BarMicroseconds : null;

    public bool? MeetsTarget => Limits is { } limits ? Time.Microseconds <= limits.TargetMicroseconds : null;
}
