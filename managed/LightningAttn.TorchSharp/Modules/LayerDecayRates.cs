using LightningAttn.Interop;
using TorchSharp;
using static TorchSharp.torch;

namespace LightningAttn.Modules;

/// <summary>The decay rates [H] of one layer, in nats per token, on whichever device asks.</summary>
/// <remarks>
/// No buffer of the module, which TorchSharp would cast along with the weights: in bf16 exp(-s) is 1 for every s below
/// 0.002, and slow heads would stop forgetting.
/// </remarks>
internal sealed class LayerDecayRates(float[] rates) : IDisposable
{
    private readonly Lock _lock = new();
    private readonly List<Tensor> _copies = []; // one per device and state type

    internal IReadOnlyList<float> Values => rates;

    /// <summary>fp32, fp64 for fp64 activations; owned by this object.</summary>
    internal Tensor For(Tensor activations)
    {
        ScalarType type = Kernels.StateType(activations.dtype);
        lock (_lock)
        {
            foreach (Tensor copy in _copies)
            {
                if (copy.dtype == type && copy.device_type == activations.device_type
                    && copy.device_index == activations.device_index)
                {
                    return copy;
                }
            }

            // What is made in inference mode could not be saved for a backward pass later.
            using IDisposable mode = inference_mode(false);
            using Tensor host = tensor(rates, ScalarType.Float32);
            Tensor made = host.to(type, activations.device, copy: true).DetachFromDisposeScope();
            _copies.Add(made);
            return made;
        }
    }

    public void Dispose()
    {
        lock (_lock)
        {
            _copies.ForEach(copy => copy.Dispose());
            _copies.Clear();
        }
    }
}
