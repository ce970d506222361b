namespace LightningAttn.Benchmarks;

/// <summary>One measured row, as the table and the JSON lines show it.</summary>
internal sealed record Row
{
    public required string Operation { get; init; }

    public required string Device { get; init; }

    public required string Type { get; init; }

    public required string Shape { get; init; }

    public required string Kernel { get; init; }

    public required Timing Time { get; init; }

    /// <summary>Bytes that have to be moved, over the time.</summary>
    public required double GigabytesPerSecond { get; init; }

    /// <summary>Time over the time in which the device copies that many bytes.</summary>
    public required double TimesCopy { get; init; }

    /// <summary>The same in TorchSharp operators, with its best chunk; null where it was not asked for.</summary>
    public required Timing? Torch { get; init; }

    public required int? TorchChunk { get; init; }

    /// <summary>Causal softmax attention of libtorch on the same tensors; CUDA only.</summary>
    public required Timing? Softmax { get; init; }

    /// <summary>Largest relative RMS error of a head against the float64 recurrence.</summary>
    public required double Error { get; init; }

    public required double? TorchError { get; init; }

    public double? SpeedUp => Torch is { } torch ? torch.Microseconds / Time.Microseconds : null;
}
