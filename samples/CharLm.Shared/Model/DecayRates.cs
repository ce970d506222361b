using LightningAttn;
using TorchSharp;
using static TorchSharp.torch;

namespace CharLm.Model;

/// <summary>The decay rates [H] of one layer, in nats per token.</summary>
/// <remarks>
/// Not a tensor field of a module, because TorchSharp would register that as a buffer and cast it along with the
/// weights: in bf16 exp(-s) is 1 for every s below 0.002, and slow heads would stop forgetting.
/// </remarks>
internal sealed class DecayRates(int heads, int layer, int layers) : IDisposable
{
    private Tensor? _rates;

    /// <summary>The rates on <paramref name="device"/>, fp32; owned by this object.</summary>
    public Tensor On(Device device)
    {
        if (_rates is null || _rates.device_type != device.type || _rates.device_index != device.index)
        {
            _rates?.Dispose();
            using var rates = Functional.build_slope_tensor(heads, layer, layers);
            _rates = rates.to(device, copy: true).DetachFromDisposeScope();
        }

        return _rates;
    }

    public void Dispose() => _rates?.Dispose();
}
