using TorchSharp;
using static TorchSharp.torch;

namespace LightningAttn.Benchmarks;

/// <summary>What the command line says.</summary>
internal sealed record Options
{
    private static readonly Shape[] s_cpuShapes = [new(1, 8, 2048, 64), new(1, 8, 2048, 128)];
    private static readonly Shape[] s_cpuDecodeShapes = [new(1, 8, 1, 64), new(1, 8, 1, 128), new(16, 8, 1, 128)];

    private static readonly Shape[] s_cudaShapes =
    [
        new(1, 64, 2048, 128), new(1, 64, 8192, 128), new(1, 16, 8192, 128), new(4, 32, 4096, 128),
        new(8, 16, 2048, 128),
    ];

    private static readonly Shape[] s_cudaDecodeShapes =
    [
        new(1, 64, 1, 128), new(4, 64, 1, 128), new(16, 64, 1, 128), new(64, 64, 1, 128), new(256, 64, 1, 128),
    ];

    public required string Device { get; init; }

    public required string? Type { get; init; }

    public required Shape[]? Shapes { get; init; }

    public required Shape[]? DecodeShapes { get; init; }

    public required int Samples { get; init; }

    public required bool NoCompare { get; init; }

    public required string? JsonFile { get; init; }

    /// <exception cref="InvalidOperationException">CUDA was asked for and is not there.</exception>
    public Device ResolveDevice() =>
        Device switch
        {
            "cpu" => CPU,
            "cuda" when !cuda.is_available() => throw new InvalidOperationException("libtorch finds no CUDA device"),
            "cuda" => CUDA,
            _ => cuda.is_available() ? CUDA : CPU,
        };

    public ScalarType[] ResolveTypes(Device device) =>
        Type switch
        {
            "fp32" => [float32],
            "fp16" => [float16],
            "bf16" => [bfloat16],
            _ => device.type == DeviceType.CUDA ? [bfloat16] : [float32],
        };

    public Shape[] ResolveShapes(Device device) =>
        Shapes ?? (device.type == DeviceType.CUDA ? s_cudaShapes : s_cpuShapes);

    public Shape[] ResolveDecodeShapes(Device device) =>
        DecodeShapes ?? (device.type == DeviceType.CUDA ? s_cudaDecodeShapes : s_cpuDecodeShapes);
}
