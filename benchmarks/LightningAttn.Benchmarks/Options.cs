using LightningAttn.Interop;
using TorchSharp;
using static TorchSharp.torch;

namespace LightningAttn.Benchmarks;

/// <summary>
/// What is measured: shapes of the forward, the forward + backward, the packed, the decode, the layer and the memory rows.
/// Those of packed rows have the sequences as B, and the tokens of all of them as N.
/// </summary>
internal sealed record ShapeLists(Shape[] Forward, Shape[] Backward, Shape[] Varlen, Shape[] Decode, Shape[] Layer, Shape[] Memory)
{
    public static ShapeLists Cpu { get; } = new(
        [new(1, 8, 2048, 64), new(1, 8, 2048, 128)],
        [new(1, 8, 2048, 64), new(1, 8, 2048, 128)],
        [new(10, 8, 2048, 128)],
        [new(1, 8, 1, 64), new(1, 8, 1, 128), new(16, 8, 1, 128)],
        [new(1, 8, 512, 64)],
        []);

    public static ShapeLists Cuda { get; } = new(
        [
            new(1, 64, 512, 128), new(1, 64, 2048, 128), new(1, 64, 8192, 128), new(2, 64, 8192, 128),
            new(1, 64, 32768, 128), new(8, 64, 2048, 128), new(4, 32, 4096, 128), new(1, 16, 8192, 128),
            new(1, 8, 65536, 128),
        ],
        [new(1, 64, 8192, 128), new(4, 32, 4096, 128), new(8, 16, 2048, 128), new(1, 16, 32768, 128)],
        [
            new(10, 64, 4096, 128), new(10, 64, 8192, 128), new(10, 64, 16384, 128), new(20, 64, 4096, 128),
            new(20, 64, 8192, 128), new(20, 64, 16384, 128),
        ],
        [new(1, 64, 1, 128), new(4, 64, 1, 128), new(16, 64, 1, 128), new(64, 64, 1, 128), new(256, 64, 1, 128)],
        [new(1, 16, 2048, 128)],
        []);
}

/// <summary>What the command line says.</summary>
internal sealed record Options
{
    public required string Device { get; init; }

    public required string? Type { get; init; }

    /// <summary>The path of our kernels.</summary>
    public required CudaPath Path { get; init; }

    /// <summary>Null for the defaults of the device.</summary>
    public required ShapeLists? Shapes { get; init; }

    public required int Samples { get; init; }

    public required bool NoCompare { get; init; }

    public required string? JsonFile { get; init; }

    public required string? ChartsFolder { get; init; }

    /// <exception cref="InvalidOperationException">CUDA was asked for and is not there.</exception>
    public Device ResolveDevice() =>
        Device switch
        {
            "cpu" => CPU,
            "cuda" when !cuda.is_available() => throw new InvalidOperationException("libtorch finds no CUDA device"),
            "cuda" => CUDA,
            _ => cuda.is_available() ? CUDA : CPU,
        };

    public ScalarType ResolveType(Device device) =>
        Type switch
        {
            "fp32" => float32,
            "fp16" => float16,
            "bf16" => bfloat16,
            _ => device.type == DeviceType.CUDA ? bfloat16 : float32,
        };

    public ShapeLists ResolveShapes(Device device) =>
        Shapes ?? (device.type == DeviceType.CUDA ? ShapeLists.Cuda : ShapeLists.Cpu);
}
