using LightningAttn.Autograd;
using LightningAttn.Interop;
using LightningAttn.Modules;
using LightningAttn.Tests.Support;

namespace LightningAttn.Tests.Modules;

/// <summary>The activations of a layer on CUDA, and the same calls on the CPU, against torch's in float64.</summary>
internal sealed class ActivationFunctionTests(DeviceType deviceType) : OperatorFixture(deviceType)
{
    private const long Rows = 5;
    private const long Columns = 300;

    /// <summary>On CUDA there is no float64.</summary>
    private static readonly ScalarType[] s_types =
        [ScalarType.Float32, ScalarType.BFloat16, ScalarType.Float16, ScalarType.Float64];

    [Test]
    public void ValuesAndGradientsAreThoseOfTorch(
        [ValueSource(nameof(s_types))] ScalarType dtype, [Values(Activation.SiLU, Activation.Sigmoid)] Activation activation)
    {
        RequireType(dtype);
        Tensor x = Input(dtype);
        Tensor gradOutput = Values.Normal(2, dtype, Device, Rows, Columns);
        Tensor output = ActivationFunction.Record(x, activation);
        output.backward([gradOutput]);

        Tensor wide = x.detach().cpu().to(ScalarType.Float64, copy: true).requires_grad_(true);
        Tensor expected = activation == Activation.SiLU ? torch.nn.functional.silu(wide) : wide.sigmoid();
        expected.backward([gradOutput.cpu().to(ScalarType.Float64)]);
        LayerCase.AssertClose(output, expected.detach(), Accuracy.Limits.Of(dtype).Floor, "output");
        LayerCase.AssertClose(x.grad!, wide.grad!, Accuracy.Limits.Of(dtype).Floor, "x");
        Assert.That(output.dtype, Is.EqualTo(dtype));
    }

    [Test]
    public void RecordedOrInPlaceTheBitsAreTheSame([Values(Activation.SiLU, Activation.Sigmoid)] Activation activation)
    {
        Tensor x = Input(ScalarType.BFloat16);
        byte[] recorded = Values.Bits(ActivationFunction.Record(x, activation));
        Tensor inPlace = x.detach().clone();
        Kernels.ActivateInPlace(inPlace, activation);
        Assert.That(Values.Bits(inPlace), Is.EqualTo(recorded));
    }

    [Test]
    public void SecondDerivativesAreRefused()
    {
        Tensor x = Input(ScalarType.Float32);
        Tensor loss = ActivationFunction.Record(x, Activation.SiLU).sum();
        IList<Tensor> gradients = torch.autograd.grad([loss], [x], create_graph: true);
        Assert.That(() => gradients[0].square().sum().backward(), Throws.Exception);
        Assert.That(Native.LastBackwardError, Is.InstanceOf<NotSupportedException>());
        Assert.That(Native.LastBackwardError!.Message, Does.Contain("activation"));
    }

    private Tensor Input(ScalarType dtype) =>
        (3 * Values.Normal(1, dtype, Device, Rows, Columns)).detach().requires_grad_(true);
}
