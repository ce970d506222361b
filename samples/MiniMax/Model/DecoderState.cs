using LightningAttn.Modules;
using TorchSharp;
using static TorchSharp.torch;

namespace MiniMax.Model;

/// <summary>
/// What the model remembers of the texts so far: keys and values of every token in softmax layers, one state [D, D] per
/// head in linear ones. Made by <see cref="MiniMaxModel.NewState"/>, empty; each pass with it goes on where the last
/// one ended. For inference: gradients do not flow through it.
/// </summary>
internal sealed class DecoderState : IDisposable
{
    private readonly IDisposable[] _layers;

    /// <param name="layers">Of each layer a <see cref="KeyValueCache"/> or a <see cref="LightningAttentionState"/>,
    /// owned by this object from here on.</param>
    public DecoderState(IDisposable[] layers) => _layers = layers;

    /// <summary>Tokens so far, padding included.</summary>
    public long Tokens { get; private set; }

    /// <summary>[B, Tokens], true where a token is no padding; null while there was none.</summary>
    public Tensor? Real { get; private set; }

    /// <summary>Of a softmax layer.</summary>
    public KeyValueCache Cache(int layer) => (KeyValueCache)_layers[layer];

    /// <summary>Of a linear layer.</summary>
    public LightningAttentionState State(int layer) => (LightningAttentionState)_layers[layer];

    /// <summary>Takes note of a pass that has been made.</summary>
    /// <param name="count">Its tokens.</param>
    /// <param name="real">All of <see cref="Real"/>, with them; copied.</param>
    public void Advance(long count, Tensor? real)
    {
        Tokens += count;
        Real?.Dispose();
        Real = real?.clone().DetachFromDisposeScope();
    }

    public void Dispose()
    {
        foreach (var layer in _layers)
        {
            layer.Dispose();
        }

        Real?.Dispose();
    }
}
