using LightningAttn.Interop;
using static TorchSharp.torch;

namespace LightningAttn.Benchmarks;

/// <summary>One way to compute an operation: one line of the table for every shape.</summary>
/// <param name="Name">As shown; of several variants with one name the fastest is shown.</param>
/// <param name="Forward">Queues one call. The state is null for what has none.</param>
internal sealed record Variant<TInputs>(string Name, Func<TInputs, (Tensor Output, Tensor? State)> Forward)
{
    /// <summary>The kernels, where they are of this library.</summary>
    public string? Kernel { get; init; }

    /// <summary>The path that was asked for, where the kernels are of this library.</summary>
    public CudaPath Path { get; init; }

    /// <summary>Whether the bar and the target are meant for it.</summary>
    public bool IsJudged { get; init; }

    /// <summary>Whether it computes what the float64 recurrence does: softmax attention does not.</summary>
    public bool IsChecked { get; init; } = true;

    /// <summary>The chunk it works in, where that is a choice.</summary>
    public int? Chunk { get; init; }

    /// <summary>Block states returned, the final one included; 0 when that one is alone.</summary>
    public long BlockStates { get; init; }
}
