using LightningAttn.Modules;

namespace CharLm.Model;

/// <summary>What the model remembers of the texts so far: a state per layer, whatever their length.</summary>
internal sealed class DecodingState(IReadOnlyList<LightningAttentionState> layers) : IDisposable
{
    public IReadOnlyList<AttentionState> Layers => layers;

    public void Dispose()
    {
        foreach (var layer in layers)
        {
            layer.Dispose();
        }
    }
}
