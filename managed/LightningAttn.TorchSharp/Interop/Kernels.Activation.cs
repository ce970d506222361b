using LightningAttn.Modules;
using TorchSharp;
using static TorchSharp.torch;

namespace LightningAttn.Interop;

/// <content>Activations, of contiguous tensors, rounded once.</content>
internal static unsafe partial class Kernels
{
    /// <summary>activation(x) in x's memory.</summary>
    internal static void ActivateInPlace(Tensor x, Activation activation) => RunActivation(x, null, x, activation);

    /// <summary>activation(x).</summary>
    internal static Tensor Activate(Tensor x, Activation activation)
    {
        Tensor output = torch.empty_like(x);
        RunActivation(x, null, output, activation);
        return output;
    }

    /// <summary>The gradient of x, given that of activation(x).</summary>
    internal static Tensor ActivationBackward(Tensor x, Tensor gradOutput, Activation activation)
    {
        Tensor gradX = torch.empty_like(x);
        RunActivation(x, OfType(gradOutput, x.dtype).contiguous(), gradX, activation);
        return gradX;
    }

    private static void RunActivation(Tensor x, Tensor? grad, Tensor output, Activation activation)
    {
        var parameters = new ActivationParams
        {
            StructSize = (ulong)sizeof(ActivationParams),
            Count = x.NumberOfElements,
            Activation = (int)activation, // numbered as lattn_activation
            Dtype = (int)x.dtype,
            DeviceType = (int)x.device_type,
            DeviceIndex = x.device_index,
            Input = TorchNative.Data(x),
            Grad = grad is null ? 0 : TorchNative.Data(grad),
            Output = TorchNative.Data(output),
            Stream = TorchNative.CurrentStream(x),
        };
        NativeStatus.ThrowIfFailed(NativeMethods.lattn_activate(&parameters));
        GC.KeepAlive(x);
        GC.KeepAlive(grad);
        GC.KeepAlive(output);
    }
}
