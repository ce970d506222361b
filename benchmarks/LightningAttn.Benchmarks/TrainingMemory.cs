using System.Runtime.InteropServices;
using TorchSharp;
using static TorchSharp.torch;

namespace LightningAttn.Benchmarks;

/// <summary>Measures how much device memory one forward + backward pass takes at its peak.</summary>
internal static class TrainingMemory
{
    /// <remarks>
    /// libtorch keeps what it once took from the driver, so afterwards the driver tells the peak. What earlier work left
    /// in libtorch's cache would serve this pass and be missed: measure memory first, the largest shape last.
    /// </remarks>
    /// <exception cref="NotSupportedException">The device is no GPU.</exception>
    /// <exception cref="InvalidOperationException">The backward pass failed, of lack of memory for example.</exception>
    public static MemoryRow Measure(Shape shape, ScalarType type, Device device)
    {
        if (device.type != DeviceType.CUDA)
        {
            throw new NotSupportedException("--memory needs a CUDA device");
        }

        // Kernels are loaded when first used, and take memory too.
        Step(shape with { Batch = 1, Heads = 1, Tokens = 1 }, type, device);
        Native.Synchronize(device);
        var before = CudaDriver.FreeBytes();
        Step(shape, type, device);
        Native.Synchronize(device);
        return new MemoryRow
        {
            Shape = shape,
            TensorBytes = 8 * shape.Elements * type.ElementSize(),
            PeakBytes = before - CudaDriver.FreeBytes(),
        };
    }

    private static void Step(Shape shape, ScalarType type, Device device)
    {
        using var scope = NewDisposeScope();
        var (q, k, v, gradient) = (Random(), Random(), Random(), Random());
        foreach (var leaf in new[] { q, k, v })
        {
            leaf.requires_grad = true;
        }

        var rates = Functional.build_slope_tensor(shape.Heads).to(device);
        var (output, _) = Functional.lightning_attention(q, k, v, rates, output_block_states: false);
        try
        {
            output.backward([gradient]);
        }
        catch (ExternalException e)
        {
            throw new InvalidOperationException($"{shape}: {Native.LastBackwardError?.Message ?? e.Message}", e);
        }

        // In place, because a copy from fp32 would be the peak.
        Tensor Random() =>
            empty([shape.Batch, shape.Heads, shape.Tokens, shape.HeadDim], type, device).normal_(0, 0.3);
    }
}
