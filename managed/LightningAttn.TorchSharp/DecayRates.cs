using System.Globalization;
using LightningAttn.Interop;
using TorchSharp;
using static TorchSharp.torch;

namespace LightningAttn;

/// <summary>The decay rates argument: ed, slope_rate.</summary>
internal static class DecayRates
{
    /// <summary>
    /// The rates as the kernels take them, [Hv] contiguous of the state type, by differentiable torch operators, so
    /// that the gradient comes back in the argument's own shape and type.
    /// </summary>
    internal static Tensor Prepare(Tensor rates, string name, long heads, Tensor v)
    {
        Check.Usable(rates, name);
        ScalarType stateType = Kernels.StateType(v.dtype);
        bool shaped = rates.dim() switch
        {
            1 => rates.size(0) == heads,
            3 => rates.size(0) == heads && rates.size(1) == 1 && rates.size(2) == 1,
            4 => rates.size(0) == 1 && rates.size(1) == heads && rates.size(2) == 1 && rates.size(3) == 1,
            _ => false,
        };
        if (!shaped)
        {
            throw new ArgumentException(
                $"{name} is {Check.Text(rates)}, expected one rate per value head: "
                + $"[{heads}], [{heads}, 1, 1] or [1, {heads}, 1, 1].",
                name);
        }

        if (rates.dtype != ScalarType.Float32 && rates.dtype != stateType)
        {
            string orWide = stateType == ScalarType.Float64 ? " or float64" : "";
            throw new ArgumentException(
                $"{name} is {Check.Text(rates)}, expected float32{orWide}: in a lower precision exp(-rate) of "
                + "slow heads rounds to 1.",
                name);
        }

        Check.SameDevice(rates, name, v, "v");
        Tensor prepared = rates.dtype == stateType ? rates : rates.to(stateType);
        prepared = prepared.dim() == 1 ? prepared : prepared.reshape(heads);
        prepared = prepared.is_contiguous() ? prepared : prepared.contiguous();
        if (prepared.device_type == DeviceType.CPU)
        {
            CheckValues(prepared, name, heads);
        }

        return prepared;
    }

    private static unsafe void CheckValues(Tensor rates, string name, long heads)
    {
        nint data = TorchNative.Data(rates);
        bool isDouble = rates.dtype == ScalarType.Float64;
        for (long head = 0; head < heads; head++)
        {
            double rate = isDouble ? ((double*)data)[head] : ((float*)data)[head];
            CheckValue(rate, name, head);
        }

        GC.KeepAlive(rates);
    }

    internal static void CheckValue(double rate, string name, long head)
    {
        if (!(rate >= 0 && double.IsFinite(rate)))
        {
            throw new ArgumentException(
                $"{name} has the value {rate.ToString(CultureInfo.InvariantCulture)} for head {head}, expected a finite "
                + "rate >= 0 in nats per token.",
                name);
        }
    }
}
