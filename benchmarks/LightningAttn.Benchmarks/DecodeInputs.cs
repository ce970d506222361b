using TorchSharp;
using static TorchSharp.torch;

namespace LightningAttn.Benchmarks;

/// <summary>
/// Td tokens [B, H, Td, D] for each of B sequences, each with its own slot of a cache [B, H, D, D], and how many of them
/// are accepted: all.
/// </summary>
internal sealed class DecodeInputs : IDisposable
{
    private readonly SequenceInputs _token;

    public DecodeInputs(Shape shape, ScalarType type, ScalarType stateType, Device device)
    {
        _token = new SequenceInputs(shape, type, device);
        Cache = randn([shape.Batch, shape.Heads, shape.HeadDim, shape.HeadDim], stateType, device);
        Slots = arange(shape.Batch, int64, device);
        Accepted = full([shape.Batch], shape.Tokens, int64, device);
        using var negative = DecayRates.neg().view(-1, 1, 1);
        Decay = negative.exp();
    }

    public Tensor Q => _token.Q;

    public Tensor K => _token.K;

    public Tensor V => _token.V;

    public Tensor DecayRates => _token.DecayRates;

    public Tensor Cache { get; }

    public Tensor Slots { get; }

    public Tensor Accepted { get; }

    /// <summary>[H, 1, 1]: exp(-s).</summary>
    public Tensor Decay { get; }

    public void Dispose()
    {
        _token.Dispose();
        Cache.Dispose();
        Slots.Dispose();
        Accepted.Dispose();
        Decay.Dispose();
    }
}
