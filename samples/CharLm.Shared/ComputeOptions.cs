using System.CommandLine;
using CharLm.Model;
using TorchSharp;
using static TorchSharp.torch;

namespace CharLm;

/// <summary>The options --device and --dtype: where to compute, and in which type attention does.</summary>
internal sealed class ComputeOptions
{
    public Option<string> Device { get; } = new("--device")
    {
        Description = "Where to compute. auto: the GPU if libtorch finds one.",
        DefaultValueFactory = _ => "auto",
    };

    public Option<string?> AttentionType { get; } = new("--dtype")
    {
        Description = "Type of q, k and v; weights and states are fp32. Default: fp32 (CUDA: bf16). "
            + "Given fp32, CUDA does not round to TF32 anywhere.",
    };

    public ComputeOptions()
    {
        Device.AcceptOnlyFromAmong("auto", "cpu", "cuda");
        AttentionType.AcceptOnlyFromAmong("fp32", "bf16", "fp16");
    }

    public static Device ResolveDevice(string device) =>
        device switch
        {
            "cpu" => CPU,
            "cuda" when !cuda.is_available() => throw new UserErrorException(
                "--device cuda: libtorch finds no CUDA device (is it a CUDA build, is a driver installed?)"),
            "cuda" => CUDA,
            _ => cuda.is_available() ? CUDA : CPU,
        };

    /// <summary>
    /// The type of q, k and v: what was asked for, else bf16 where tensor cores compute and fp32 on the CPU.
    /// </summary>
    public static ScalarType ResolveAttentionType(string? type, Device device) =>
        type switch
        {
            "fp32" => float32,
            "bf16" => bfloat16,
            "fp16" => float16,
            _ => device.type == DeviceType.CUDA ? bfloat16 : float32,
        };

    /// <exception cref="UserErrorException">The sizes do not fit together, or the device has no kernels for them.
    /// </exception>
    public static void CheckModel(ModelConfig config, Device device)
    {
        if (config.Dim % config.Heads != 0)
        {
            throw new UserErrorException($"--dim {config.Dim} is not a multiple of --heads {config.Heads}");
        }

        if (device.type == DeviceType.CUDA && (config.HeadDim is < 16 or > 256 || config.HeadDim % 8 != 0))
        {
            throw new UserErrorException(
                $"--dim / --heads is {config.HeadDim}; on CUDA it must be a multiple of 8 from 16 to 256");
        }
    }
}
