using LightningAttn.Interop;
using LightningAttn.Modules;
using LightningAttn.Tests.Support;

namespace LightningAttn.Tests.Modules;

/// <summary>The gated norm behind the operator against its formula in float64 and against torch's operators.</summary>
internal sealed class GatedNormTests(DeviceType deviceType) : OperatorFixture(deviceType)
{
    private const long Batch = 2;
    private const long Heads = 4;
    private const long Tokens = 7;
    private const long HeadDim = 24;
    private const long Channels = Heads * HeadDim;
    private const double Eps = 1e-6;

    /// <summary>On CUDA the operator has no float64.</summary>
    private static readonly ScalarType[] s_types =
        [ScalarType.Float32, ScalarType.BFloat16, ScalarType.Float16, ScalarType.Float64];

    [Test]
    public void ValuesAndGradientsAreThoseOfTheFormula(
        [ValueSource(nameof(s_types))] ScalarType dtype, [Values] Activation activation, [Values(1, 4, 8)] long groups)
    {
        RequireType(dtype);
        Inputs inputs = Create(dtype, groups);
        Tensor output = inputs.Norm.Gated(inputs.X, inputs.Gate, activation);
        Tensor gradOutput = Values.Normal(9, dtype, Device, Batch, Tokens, Channels);
        output.backward([gradOutput]);

        Inputs wide = inputs.Wide();
        Formula(wide, groups, activation).backward([gradOutput.cpu().to(ScalarType.Float64)]);
        Tensor expected;
        using (torch.no_grad())
        {
            expected = Formula(wide, groups, activation);
        }

        AssertClose(output, expected, dtype, "output");
        AssertClose(inputs.X.grad!, wide.X.grad!, dtype, "x");
        AssertClose(inputs.Gate.grad!, wide.Gate.grad!, dtype, "gate");
        AssertClose(inputs.Weight.grad!, wide.Weight.grad!, dtype, "weight");
        Assert.That(output.dtype, Is.EqualTo(dtype));
        Assert.That(inputs.Weight.grad!.dtype, Is.EqualTo(dtype));
    }

    [Test]
    public void ItRoundsLessThanTheOperatorsOfTorch(
        [Values(ScalarType.BFloat16, ScalarType.Float16)] ScalarType dtype, [Values(1, 4)] long groups)
    {
        Inputs inputs = Create(dtype, groups);
        using IDisposable mode = torch.no_grad();
        double[] expected = Values.Of(Formula(inputs.Wide(), groups, Activation.Sigmoid));
        Tensor composed = inputs.Gate.sigmoid() * inputs.Norm.call(inputs.X.transpose(1, 2).flatten(2));
        double fused = Accuracy.RelativeError(
            Values.Of(inputs.Norm.Gated(inputs.X, inputs.Gate, Activation.Sigmoid)), expected);
        Assert.That(fused, Is.LessThan(Accuracy.RelativeError(Values.Of(composed), expected)));
    }

    [Test]
    public void TensorsOfAnyStridesAreTakenAsTheyAre([Values] bool recording)
    {
        Inputs inputs = Create(ScalarType.Float32, 2);
        using IDisposable? mode = recording ? null : torch.no_grad();
        byte[] expected = Values.Bits(inputs.Norm.Gated(inputs.X, inputs.Gate, Activation.SiLU));
        Tensor tokensFirst = inputs.X.transpose(1, 2).contiguous().transpose(1, 2);
        Tensor columns = inputs.X.transpose(2, 3).contiguous().transpose(2, 3); // no unit stride
        Tensor wider = torch.cat([inputs.Gate, inputs.Gate], -1).narrow(-1, Channels, Channels);
        Assert.That(Values.Bits(inputs.Norm.Gated(tokensFirst, wider, Activation.SiLU)), Is.EqualTo(expected));
        Assert.That(Values.Bits(inputs.Norm.Gated(columns, wider, Activation.SiLU)), Is.EqualTo(expected));
    }

    [Test]
    public void OnlyWantedGradientsAreComputed()
    {
        Inputs inputs = Create(ScalarType.Float32, 2);
        inputs.Weight.requires_grad_(false);
        Tensor x = inputs.X.detach();
        inputs.Norm.Gated(x, inputs.Gate, Activation.Sigmoid).sum().backward();
        Assert.That(x.grad is null && inputs.Weight.grad is null, Is.True);

        Tensor expected = inputs.Gate.grad!;
        Inputs all = Create(ScalarType.Float32, 2);
        all.Norm.Gated(all.X, all.Gate, Activation.Sigmoid).sum().backward();
        Assert.That(Values.Bits(expected), Is.EqualTo(Values.Bits(all.Gate.grad!)));
    }

    [Test]
    public void NothingIsRecordedWhereNoGradientIsWanted()
    {
        Inputs inputs = Create(ScalarType.Float32, 1);
        using (torch.no_grad())
        {
            Assert.That(inputs.Norm.Gated(inputs.X, inputs.Gate, Activation.Sigmoid).requires_grad, Is.False);
        }

        inputs.Weight.requires_grad_(false);
        Tensor output = inputs.Norm.Gated(inputs.X.detach(), inputs.Gate.detach(), Activation.Sigmoid);
        Assert.That(output.requires_grad, Is.False);
    }

    [Test]
    public void ACallLeavesItsResultAndNothingElse([Values] bool recording)
    {
        Inputs inputs = Create(ScalarType.Float32, 2);
        Tensor columns = inputs.X.detach().transpose(2, 3).contiguous().transpose(2, 3);
        using IDisposable? mode = recording ? null : torch.no_grad();
        using var scope = torch.NewDisposeScope();
        Tensor output = inputs.Norm.Gated(columns, inputs.Gate, Activation.Sigmoid);
        Assert.That(scope.DisposablesCount, Is.EqualTo(1));
        Assert.That(scope.Contains(output), Is.True);
    }

    [Test]
    public void TheSameStepTwiceGivesTheSameGradients()
    {
        byte[][] Step()
        {
            Inputs inputs = Create(ScalarType.BFloat16, 2);
            inputs.Norm.Gated(inputs.X, inputs.Gate, Activation.Sigmoid).square().sum().backward();
            return [Values.Bits(inputs.X.grad!), Values.Bits(inputs.Gate.grad!), Values.Bits(inputs.Weight.grad!)];
        }

        Assert.That(Step(), Is.EqualTo(Step()));
    }

    [Test]
    public void SecondDerivativesAreRefused()
    {
        Inputs inputs = Create(ScalarType.Float32, 2);
        Tensor loss = inputs.Norm.Gated(inputs.X, inputs.Gate, Activation.Sigmoid).sum();
        IList<Tensor> gradients = torch.autograd.grad([loss], [inputs.Gate], create_graph: true);
        Assert.That(gradients[0].requires_grad, Is.True);
        Assert.That(() => gradients[0].square().sum().backward(), Throws.Exception);
        Assert.That(Native.LastBackwardError, Is.InstanceOf<NotSupportedException>());
        Assert.That(Native.LastBackwardError!.Message, Does.Contain("gated norm"));
    }

    /// <summary>Where a model keeps its norms in float32, torch's operators serve.</summary>
    [Test]
    public void ALayerWithWeightsOfTwoTypesIsComposed()
    {
        using var layer = new LightningAttn.Modules.LightningAttention(32, 2, 0, 2, device: Device, dtype: ScalarType.BFloat16);
        Tensor x = Values.Normal(4, ScalarType.BFloat16, Device, 1, 5, 32);
        using IDisposable mode = torch.no_grad();
        Tensor fused = layer.call(x);
        layer.named_children().Single(static child => child.name == "norm").module.to(ScalarType.Float32);
        LayerCase.AssertClose(layer.call(x), fused, 0.02);
    }

    private Inputs Create(ScalarType dtype, long groups)
    {
        var norm = new RootMeanSquareNorm(Channels, groups, Eps, Device, dtype);
        using (torch.no_grad())
        {
            norm.parameters().Single().copy_(1 + (0.3 * Values.Normal(1, ScalarType.Float64, torch.CPU, Channels)));
        }

        return new Inputs(
            norm,
            Values.Normal(2, dtype, Device, Batch, Heads, Tokens, HeadDim).requires_grad_(true),
            (2 * Values.Normal(3, dtype, Device, Batch, Tokens, Channels)).detach().requires_grad_(true),
            norm.parameters().Single());
    }

    private static Tensor Formula(Inputs inputs, long groups, Activation activation)
    {
        Tensor x = inputs.X.transpose(1, 2).flatten(2).unflatten(2, [groups, -1]);
        Tensor normed = (x / (x.square().mean([-1], keepdim: true) + Eps).sqrt()).flatten(2);
        Tensor gate = activation switch
        {
            Activation.Identity => inputs.Gate,
            Activation.SiLU => torch.nn.functional.silu(inputs.Gate),
            _ => inputs.Gate.sigmoid(),
        };
        return gate * normed * inputs.Weight;
    }

    private static void AssertClose(Tensor actual, Tensor expected, ScalarType dtype, string what) =>
        LayerCase.AssertClose(actual, expected, Accuracy.Limits.Of(dtype).Floor, what);

    private sealed record Inputs(RootMeanSquareNorm Norm, Tensor X, Tensor Gate, Tensor Weight)
    {
        /// <summary>The same values in float64 on the CPU, as leaves.</summary>
        internal Inputs Wide() => new(Norm, Leaf(X), Leaf(Gate), Leaf(Weight));

        private static Tensor Leaf(Tensor tensor) =>
            tensor.detach().cpu().to(ScalarType.Float64, copy: true).requires_grad_(true);
    }
}
