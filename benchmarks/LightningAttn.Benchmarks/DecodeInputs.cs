using TorchSharp;
using static TorchSharp.torch;

namespace LightningAttn.Benchmarks;

/// <summary>
/// One token [B, H, 1, D] for each of B sequences, each with its own slot of an fp32 cache [B, H, D, D].
/// </summary>
internal sealed class DecodeInputs : IDisposable
{
    private readonly SequenceInputs _token;

    public DecodeInputs(Shape shape, ScalarType type, Device device)
    {
        _token = new SequenceInputs(shape, type, device);
        Cache = randn([shape.Batch, shape.Heads, shape.HeadDim, shape.HeadDim], float32, device);
        Slots = arange(shape.Batch, int64, device);
        using var negative = DecayRates.neg().view(-1, 1, 1);
        Decay = negative.exp();
    }

    public Tensor Q => _token.Q;

    public Tensor K => _token.K;

    public Tensor V => _token.V;

    public Tensor DecayRates => _token.DecayRates;

    public Tensor Cache { get; }

    public Tensor Slots { get; }

    /// <summary>[H, 1, 1]: exp(-s).</summary>
    public Tensor Decay { get; }

    public void Dispose()
    {
        _token.Dispose();
        Cache.Dispose();
        Slots.Dispose();
        Decay.Dispose();
    }
}
