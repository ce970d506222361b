using TorchSharp;
using static TorchSharp.torch;

namespace LightningAttn.Benchmarks;

/// <summary>Random q, k, v and output gradient [B, H, N, D] and the decay rates [H] of a model's first layer.</summary>
internal sealed class SequenceInputs : IDisposable
{
    public SequenceInputs(Shape shape, ScalarType type, Device device)
    {
        Q = Random(shape, QueryKeyScale(shape), type, device);
        K = Random(shape, QueryKeyScale(shape), type, device);
        V = Random(shape, 1, type, device);
        GradOutput = Random(shape, 1, type, device);
        using var rates = Functional.build_slope_tensor(shape.Heads);
        DecayRates = rates.to(device, copy: true);
    }

    public Tensor Q { get; }

    public Tensor K { get; }

    public Tensor V { get; }

    public Tensor GradOutput { get; }

    public Tensor DecayRates { get; }

    public void RequireGradients(bool required)
    {
        Q.requires_grad = required;
        K.requires_grad = required;
        V.requires_grad = required;
    }

    public void Dispose()
    {
        Q.Dispose();
        K.Dispose();
        V.Dispose();
        GradOutput.Dispose();
        DecayRates.Dispose();
    }

    // Scores q.k of unit variance.
    private static double QueryKeyScale(Shape shape) => Math.Pow(shape.HeadDim, -0.25);

    private static Tensor Random(Shape shape, double scale, ScalarType type, Device device)
    {
        using var scope = NewDisposeScope();
        var values = randn([shape.Batch, shape.Heads, shape.Tokens, shape.HeadDim], float32, device).mul_(scale);
        return values.to(type).DetachFromDisposeScope();
    }
}
