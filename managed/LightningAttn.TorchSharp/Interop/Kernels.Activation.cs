using LightningAttn.Modules;
using TorchSharp;
using static TorchSharp.torch;

namespace LightningAttn.Interop;

/// <content>Activations.</content>
internal static unsafe partial class Kernels
{
    /// <summary>x = activation(x), for contiguous x, rounded once.</summary>
    internal static void ActivateInPlace(Tensor x, Activation activation)
    {
        nint data = TorchNative.Data(x);
        var parameters = new ActivationParams
        {
            StructSize = (ulong)sizeof(ActivationParams),
            Count = x.NumberOfElements,
            Activation = (int)activation, // numbered as lattn_activation
            Dtype = (int)x.dtype,
            DeviceType = (int)x.device_type,
            DeviceIndex = x.device_index,
            Input = data,
            Output = data,
            Stream = TorchNative.CurrentStream(x),
        };
        NativeStatus.ThrowIfFailed(NativeMethods.lattn_activate(&parameters));
        GC.KeepAlive(x);
    }
}
