using LightningAttn.Modules;
using LightningAttn.Tests.Support;
using TorchSharp.Modules;
using Layer = LightningAttn.Modules.LightningAttention;

namespace LightningAttn.Tests.Modules;

/// <summary>The layer against its formulas in float64, in every way that tokens can come.</summary>
internal sealed class LightningAttentionTests(DeviceType deviceType) : OperatorFixture(deviceType)
{
    private const double Limit = 5e-6; // relative RMS in float32

    private static IEnumerable<string> Presets => LayerCase.Presets.Keys;

    [Test]
    public void TheOutputIsThatOfTheFormulas([ValueSource(nameof(Presets))] string preset)
    {
        var layer = new LayerCase(preset, Device);
        Tensor x = layer.Input(2, 70);
        LayerCase.AssertClose(layer.Module.call(x), layer.Expected(x), Limit);
    }

    /// <summary>
    /// Long enough for the gate to be projected beside the operator, on CUDA on a stream of its own; what is not in order
    /// there would differ from call to call.
    /// </summary>
    [Test]
    public void NothingRecordedGivesTheFormulasToo([ValueSource(nameof(Presets))] string preset)
    {
        const int Calls = 10;
        var layer = new LayerCase(preset, Device);
        Tensor x = layer.Input(1, 600);
        using IDisposable mode = torch.no_grad();
        Tensor first = layer.Module.call(x);
        LayerCase.AssertClose(first, layer.Expected(x), Limit);
        byte[] bits = Values.Bits(first);
        for (int call = 0; call < Calls; call++)
        {
            using DisposeScope scope = torch.NewDisposeScope();
            Tensor later = layer.Module.call(x);
            using Tensor other = layer.Module.call(x + 1); // takes the memory that the call before has left
            Assert.That(Values.Bits(later), Is.EqualTo(bits));
        }
    }

    [Test]
    public void TheGradientsAreThoseOfTheFormulas([ValueSource(nameof(Presets))] string preset)
    {
        var layer = new LayerCase(preset, Device);
        Tensor x = layer.Input(2, 37).requires_grad_(true);
        Tensor gradOutput = Values.Normal(7, ScalarType.Float64, torch.CPU, 2, 37, LayerCase.Hidden);
        layer.Module.call(x).backward([gradOutput.to(ScalarType.Float32).to(Device)]);

        Dictionary<string, Tensor> weights = layer.WideWeights(leaves: true);
        Tensor wide = x.detach().cpu().to(ScalarType.Float64).requires_grad_(true);
        layer.Expected(wide, weights).backward([gradOutput]);

        LayerCase.AssertClose(x.grad!, wide.grad!, 1e-5, "x");
        foreach ((string name, Parameter parameter) in layer.Module.named_parameters())
        {
            LayerCase.AssertClose(parameter.grad!, weights[name].grad!, 1e-5, name);
        }
    }

    [Test]
    public void PiecesGiveWhatTheWholeGives(
        [ValueSource(nameof(Presets))] string preset, [Values("90", "64 26", "1 1 40 1 47", "89 1")] string pieces)
    {
        var layer = new LayerCase(preset, Device);
        Tensor x = layer.Input(2, 90);
        using LightningAttentionState state = layer.Module.new_state(2);
        using (torch.no_grad())
        {
            long begin = 0;
            var outputs = new List<Tensor>();
            foreach (long tokens in pieces.Split(' ').Select(long.Parse))
            {
                outputs.Add(layer.Module.call(x.narrow(1, begin, tokens), state));
                begin += tokens;
                Assert.That(state.tokens, Is.EqualTo(begin));
            }

            LayerCase.AssertClose(torch.cat(outputs, 1), layer.Expected(x), Limit);
        }
    }

    [Test]
    public void PaddingAtTheLeftChangesNothing([ValueSource(nameof(Presets))] string preset)
    {
        // Sequence 0 has 30 tokens behind 20 of padding, the first piece of them is padding alone; sequence 1 has 50.
        var layer = new LayerCase(preset, Device);
        Tensor x = layer.Input(2, 52);
        Tensor mask = torch.ones(2, 52, ScalarType.Int64);
        mask[0].narrow(0, 0, 20).zero_();
        mask = mask.to(Device);
        Tensor expected = layer.Expected(x.narrow(1, 20, 32)).narrow(0, 0, 1);
        Tensor expectedFull = layer.Expected(x).narrow(0, 1, 1);
        using (torch.no_grad())
        {
            Check(layer.Module.call(x, null, mask));

            using LightningAttentionState state = layer.Module.new_state(2);
            var outputs = new List<Tensor>();
            foreach ((long begin, long tokens) in new[] { (0L, 8L), (8, 42), (50, 1) })
            {
                outputs.Add(layer.Module.call(
                    x.narrow(1, begin, tokens), state, mask.narrow(1, begin, tokens)));
            }

            outputs.Add(layer.Module.call(x.narrow(1, 51, 1), state)); // no mask where there is no padding
            Check(torch.cat(outputs, 1));
        }

        void Check(Tensor y)
        {
            LayerCase.AssertClose(y.narrow(0, 0, 1).narrow(1, 20, 32), expected, Limit, "padded sequence");
            LayerCase.AssertClose(y.narrow(0, 1, 1), expectedFull, Limit, "full sequence");
        }
    }

    [Test]
    public void SlowHeadsRememberInBFloat16()
    {
        // The slowest rate is 1.3e-4 nats per token, and exp(-s) of it rounds to 1 in bfloat16.
        using var layer = new Layer(64, 8, 30, 32, 16, device: Device);
        float[] before = [.. layer.decay_rates];
        layer.to(ScalarType.BFloat16);
        Assert.That(layer.decay_rates, Is.EqualTo(before));
        Assert.That(layer.parameters().Select(static p => p.dtype), Is.All.EqualTo(ScalarType.BFloat16));

        Tensor x = Values.Normal(3, ScalarType.BFloat16, Device, 1, 600, 64);
        using LightningAttentionState state = layer.new_state(1);
        using (torch.no_grad())
        {
            layer.call(x, state);
        }

        Assert.That(state.kv.dtype, Is.EqualTo(ScalarType.Float32));
        var wide = new LightningAttn.Tests.Reference.LayerReference(
            LightningAttentionOptions.MiniMax,
            8,
            16,
            before,
            layer.named_parameters().ToDictionary(
                static p => p.name, static p => p.parameter.detach().cpu().to(ScalarType.Float64)));
        Tensor expected = wide.Forward(x[0].cpu().to(ScalarType.Float64));
        using (torch.no_grad())
        {
            LayerCase.AssertClose(layer.call(x)[0], expected, 0.012);
        }
    }

    [Test]
    public void GradientsFlowThroughTheState([ValueSource(nameof(Presets))] string preset)
    {
        var layer = new LayerCase(preset, Device);
        Tensor whole = layer.Input(2, 41).requires_grad_(true);
        layer.Module.call(whole).square().sum().backward();

        Tensor parts = whole.detach().requires_grad_(true);
        using LightningAttentionState state = layer.Module.new_state(2);
        Tensor y = torch.cat(
            [
                layer.Module.call(parts.narrow(1, 0, 25), state),
                layer.Module.call(parts.narrow(1, 25, 1), state),
                layer.Module.call(parts.narrow(1, 26, 15), state),
            ],
            1);
        y.square().sum().backward();
        LayerCase.AssertClose(parts.grad!, whole.grad!, 1e-5);
    }

    [Test]
    public void DetachCutsGradientsOff()
    {
        var layer = new LayerCase("MiniMax", Device);
        Tensor x = layer.Input(1, 20).requires_grad_(true);
        using LightningAttentionState state = layer.Module.new_state(1);
        layer.Module.call(x.narrow(1, 0, 10), state);
        byte[] values = Values.Bits(state.kv);
        state.detach();
        Assert.That(Values.Bits(state.kv), Is.EqualTo(values));
        layer.Module.call(x.narrow(1, 10, 10), state).sum().backward();

        Assert.That(Values.Of(x.grad!.narrow(1, 0, 10)), Is.All.Zero);
        Assert.That(Values.Of(x.grad!.narrow(1, 10, 10)), Has.Some.Not.Zero);
    }

    [Test]
    public void AStateIsReset()
    {
        var layer = new LayerCase("Ling", Device);
        Tensor x = layer.Input(2, 12);
        using LightningAttentionState state = layer.Module.new_state(2);
        Tensor first = layer.Module.call(x, state); // recorded
        state.reset();
        Assert.That(state.tokens, Is.Zero);
        Assert.That(Values.Bits(layer.Module.call(x, state)), Is.EqualTo(Values.Bits(first)));
        state.reset();
        using (torch.no_grad())
        {
            Assert.That(Values.Bits(layer.Module.call(x, state)), Is.EqualTo(Values.Bits(first)));
        }
    }

    [Test]
    public void TrainingAndEvaluationComputeTheSame()
    {
        var layer = new LayerCase("MiniMax", Device);
        Tensor x = layer.Input(2, 33);
        layer.Module.train();
        byte[] expected = Values.Bits(layer.Module.call(x));
        layer.Module.eval();
        Assert.That(Values.Bits(layer.Module.call(x)), Is.EqualTo(expected));
        using (torch.inference_mode())
        {
            Assert.That(Values.Bits(layer.Module.call(x)), Is.EqualTo(expected));
        }
    }

    [Test]
    public void ALayerFirstUsedInInferenceModeCanBeTrained()
    {
        var layer = new LayerCase("Ling", Device);
        Tensor x = layer.Input(1, 9);
        LightningAttentionState state;
        using (torch.inference_mode())
        {
            state = layer.Module.new_state(1);
            layer.Module.call(x, state);
        }

        using (state)
        {
            state.reset();
            layer.Module.call(x, state).sum().backward();
        }

        Assert.That(layer.Module.parameters().Select(static p => p.grad is not null), Is.All.True);
    }

    [Test]
    public void ACallLeavesItsResultAndNothingElse([Values] bool recording, [Values] bool withState)
    {
        var layer = new LayerCase("Ling", Device);
        Tensor x = layer.Input(2, 20);
        using LightningAttentionState? state = withState ? layer.Module.new_state(2) : null;
        using IDisposable? mode = recording ? null : torch.no_grad();
        using var scope = torch.NewDisposeScope();
        Tensor y = layer.Module.call(x, state, torch.ones(2, 20, device: Device));
        Assert.That(scope.DisposablesCount, Is.EqualTo(2)); // y and the mask
        Assert.That(scope.Contains(y), Is.True);
    }

    [Test]
    public void LayersAndStatesOutliveTheScopeTheyWereMadeIn()
    {
        Layer layer;
        LightningAttentionState state;
        using (torch.NewDisposeScope())
        {
            layer = new Layer(32, 2, 0, 2, options: LightningAttentionOptions.Ling with { NormGroups = 2 }, device: Device);
            state = layer.new_state(1);
            layer.call(torch.ones(1, 3, 32, device: Device), state);
        }

        using (layer)
        using (state)
        {
            layer.call(torch.ones(1, 3, 32, device: Device), state).sum().backward();
            Assert.That(layer.parameters().Count(), Is.EqualTo(6));
        }
    }

    [Test]
    public void NoTokensAreNoWork()
    {
        var layer = new LayerCase("MiniMax", Device);
        using LightningAttentionState state = layer.Module.new_state(2);
        Assert.That(layer.Module.call(layer.Input(2, 0), state).shape, Is.EqualTo(new long[] { 2, 0, LayerCase.Hidden }));
        Assert.That(state.tokens, Is.Zero);
    }
}
