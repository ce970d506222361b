using LightningAttn;
using TorchSharp;
using static TorchSharp.torch;

namespace CharLm.Model;

/// <summary>
/// What the model remembers of the text so far: one fp32 state [D, E] per layer and head, whatever its length.
/// </summary>
/// <remarks>Starts empty. Each pass of the model with this state reads it and moves it on.</remarks>
internal sealed class DecodingState : IAttentionState, IDisposable
{
    private readonly Tensor[] _caches; // per layer [slots, H, D, E]; one slot per sequence
    private readonly Tensor _slots;    // [B]

    public DecodingState(ModelConfig config, int batchSize, Device device)
    {
        _caches = new Tensor[config.Layers];
        for (var layer = 0; layer < config.Layers; layer++)
        {
            _caches[layer] = zeros(batchSize, config.Heads, config.HeadDim, config.HeadDim, float32, device)
                .DetachFromDisposeScope();
        }

        _slots = arange(batchSize, int64, device).DetachFromDisposeScope();
    }

    /// <inheritdoc/>
    public Tensor Attend(int layer, Tensor q, Tensor k, Tensor v, Tensor decayRates)
    {
        var cache = _caches[layer];
        if (q.size(2) == 1)
        {
            using var token = Functional.linear_decode_forward(q, k, v, cache, decayRates, _slots);
            return token.unsqueeze(1);
        }

        using var scope = NewDisposeScope();
        var (output, kv) = Functional.lightning_attention(
            q, k, v, decayRates, kv_history: cache, output_block_states: false);
        cache.copy_(kv.select(2, -1));
        return output.transpose(1, 2).flatten(2).MoveToOuterDisposeScope();
    }

    public void Dispose()
    {
        foreach (var cache in _caches)
        {
            cache.Dispose();
        }

        _slots.Dispose();
    }
}
