using LightningAttn.Modules;
using TorchSharp;
using static TorchSharp.torch;

namespace LightningAttn.Interop;

/// <summary>What a gated norm takes besides tensors.</summary>
/// <param name="Groups">Groups of the H E channels, each with a mean of its own.</param>
/// <param name="Eps">Added to the mean square.</param>
/// <param name="Activation">Of the gate.</param>
internal sealed record GatedNormOptions(long Groups, double Eps, Activation Activation);

/// <summary>The inputs of a gated norm whose gradients are wanted.</summary>
[Flags]
internal enum GatedNormInputs
{
    None = 0,
    X = 1,
    Gate = 2,
    Weight = 4,
}

/// <summary>Gradients of a gated norm's inputs; null where not wanted.</summary>
internal readonly record struct GatedNormGradients(Tensor? X, Tensor? Gate, Tensor? Weight);

/// <content>
/// The gated norm: x [B, H, N, E] of any strides, gate [B, N, H E], weight [H E], all of one type and device.
/// </content>
internal static unsafe partial class Kernels
{
    /// <summary>activation(gate) * x / sqrt(mean(x^2) + eps) * weight, [B, N, H E], rounded once.</summary>
    internal static Tensor GatedNormForward(Tensor x, Tensor gate, Tensor weight, GatedNormOptions options)
    {
        Tensor output = Empty([gate.size(0), gate.size(1), gate.size(2)], x.dtype, x);
        x = WithUnitStride(x);
        gate = WithUnitStride(gate);
        weight = weight.contiguous();
        var parameters = new GatedNormForwardParams
        {
            StructSize = (ulong)sizeof(GatedNormForwardParams),
            Norm = DescribeGatedNorm(x, options),
            X = ViewOf(x),
            Gate = HeadsOf(gate, x),
            Weight = TorchNative.Data(weight),
            Output = HeadsOf(output, x),
            Stream = TorchNative.CurrentStream(output),
        };
        NativeStatus.ThrowIfFailed(NativeMethods.lattn_gated_norm_forward(&parameters));
        GC.KeepAlive(x);
        GC.KeepAlive(gate);
        GC.KeepAlive(weight);
        GC.KeepAlive(output);
        return output;
    }

    /// <summary>The wanted gradients, given that of the output [B, N, H E].</summary>
    internal static GatedNormGradients GatedNormBackward(
        Tensor x, Tensor gate, Tensor weight, Tensor gradOutput, GatedNormInputs wanted, GatedNormOptions options)
    {
        var gradients = new GatedNormGradients(
            EmptyIf(GatedNormInputs.X, [x.size(0), x.size(1), x.size(2), x.size(3)]),
            EmptyIf(GatedNormInputs.Gate, [gate.size(0), gate.size(1), gate.size(2)]),
            EmptyIf(GatedNormInputs.Weight, [weight.size(0)]));
        x = WithUnitStride(x);
        gate = WithUnitStride(gate);
        weight = weight.contiguous();
        gradOutput = WithUnitStride(OfType(gradOutput, x.dtype));
        var parameters = new GatedNormBackwardParams
        {
            StructSize = (ulong)sizeof(GatedNormBackwardParams),
            Norm = DescribeGatedNorm(x, options),
            X = ViewOf(x),
            Gate = HeadsOf(gate, x),
            Weight = TorchNative.Data(weight),
            GradOutput = HeadsOf(gradOutput, x),
            GradX = ViewOf(gradients.X),
            GradGate = gradients.Gate is null ? default : HeadsOf(gradients.Gate, x),
            GradWeight = gradients.Weight is null ? 0 : TorchNative.Data(gradients.Weight),
            Stream = TorchNative.CurrentStream(x),
        };
        NativeStatus.ThrowIfFailed(
            NativeMethods.lattn_gated_norm_backward_workspace_size(&parameters, &parameters.WorkspaceBytes));
        Tensor? workspace = Workspace(parameters.WorkspaceBytes, x, out parameters.Workspace);
        NativeStatus.ThrowIfFailed(NativeMethods.lattn_gated_norm_backward(&parameters));
        GC.KeepAlive(x);
        GC.KeepAlive(gate);
        GC.KeepAlive(weight);
        GC.KeepAlive(gradOutput);
        GC.KeepAlive(gradients.X);
        GC.KeepAlive(gradients.Gate);
        GC.KeepAlive(gradients.Weight);
        GC.KeepAlive(workspace);
        return gradients;

        Tensor? EmptyIf(GatedNormInputs input, long[] size) =>
            wanted.HasFlag(input) ? Empty(size, x.dtype, x) : null;
    }

    private static GatedNorm DescribeGatedNorm(Tensor x, GatedNormOptions options) => new()
    {
        Batch = x.size(0),
        Heads = x.size(1),
        Tokens = x.size(2),
        HeadDim = x.size(3),
        Groups = options.Groups,
        Eps = options.Eps,
        Activation = (int)options.Activation, // numbered as lattn_activation
        Dtype = (int)x.dtype,
        DeviceType = (int)x.device_type,
        DeviceIndex = x.device_index,
    };

    /// <summary>[B, N, H E] seen as [B, H, N, E].</summary>
    private static View HeadsOf(Tensor tensor, Tensor x) => new()
    {
        Data = TorchNative.Data(tensor),
        StrideB = tensor.stride(0),
        StrideH = x.size(3),
        StrideN = tensor.stride(1),
    };
}
