using LightningAttn.Modules;
using LightningAttn.Tests.Support;
using TorchSharp.Modules;

namespace LightningAttn.Tests.Modules;

/// <summary>The layer as servers and packed training call it: sequences of different lengths, states in a pool.</summary>
internal sealed class ServingTests(DeviceType deviceType) : OperatorFixture(deviceType)
{
    private const double Limit = 5e-6; // relative RMS in float32

    private static readonly long[] Lengths = [5, 0, 70, 1];

    private static IEnumerable<string> Presets => LayerCase.Presets.Keys;

    [Test]
    public void PackedSequencesAreThoseOfTheFormulas([ValueSource(nameof(Presets))] string preset)
    {
        // Two tokens behind the last sequence belong to none.
        var layer = new LayerCase(preset, Device);
        Tensor x = layer.Input(1, Lengths.Sum() + 2).requires_grad_(true);
        Tensor y = layer.Module.call(x, new PackedSequences(Offsets(Lengths), positions: Positions(Lengths, padding: 2)));
        Tensor gradOutput = Values.Normal(7, ScalarType.Float64, torch.CPU, 1, x.size(1), LayerCase.Hidden);
        gradOutput.narrow(1, x.size(1) - 2, 2).zero_();
        y.backward([gradOutput.to(ScalarType.Float32).to(Device)]);

        Dictionary<string, Tensor> weights = layer.WideWeights(leaves: true);
        Tensor wide = x.detach().cpu().to(ScalarType.Float64).requires_grad_(true);
        long begin = 0;
        var expected = new List<Tensor>();
        foreach (long tokens in Lengths.Where(static tokens => tokens > 0))
        {
            expected.Add(layer.Expected(wide.narrow(1, begin, tokens), weights));
            begin += tokens;
        }

        Tensor all = torch.cat(expected, 1);
        LayerCase.AssertClose(y.narrow(1, 0, begin), all, Limit);
        all.backward([gradOutput.narrow(1, 0, begin)]);
        LayerCase.AssertClose(x.grad!, wide.grad!, 1e-5, "x");
        foreach ((string name, Parameter parameter) in layer.Module.named_parameters())
        {
            LayerCase.AssertClose(parameter.grad!, weights[name].grad!, 1e-5, name);
        }
    }

    [Test]
    public void AServersPassesGiveWhatTheWholeGives([ValueSource(nameof(Presets))] string preset)
    {
        // Sequence a: 50 tokens and 30, b: 7 of a prompt, then both decode 3 tokens; slots hold garbage before.
        var layer = new LayerCase(preset, Device);
        Tensor a = layer.Input(1, 83, seed: 1);
        Tensor b = layer.Input(1, 10, seed: 2);
        Tensor pool = torch.full(
            [4, LayerCase.Heads, LayerCase.HeadDim, LayerCase.HeadDim], float.NaN, device: Device);
        var outputs = (A: new List<Tensor>(), B: new List<Tensor>());
        using (torch.no_grad())
        {
            outputs.A.Add(layer.Module.call(
                a.narrow(1, 0, 50),
                new PackedSequences(Offsets(50), pool, Indices(3), Flags(false), Positions([50]))));

            Tensor both = layer.Module.call(
                torch.cat([a.narrow(1, 50, 30), b.narrow(1, 0, 7)], 1),
                new PackedSequences(
                    Offsets(30, 7),
                    pool,
                    Indices(3, 1),
                    Flags(true, false),
                    torch.cat([torch.arange(50, 80), torch.arange(7)]).to(Device)));
            outputs.A.Add(both.narrow(1, 0, 30));
            outputs.B.Add(both.narrow(1, 30, 7));

            for (int i = 0; i < 3; i++)
            {
                Tensor x = torch.cat([a.narrow(1, 80 + i, 1), layer.Input(1, 1), b.narrow(1, 7 + i, 1)], 0);
                Tensor y = layer.Module.call(x, new PooledSequences(pool, Indices(3, -1, 1), Indices(80 + i, 0, 7 + i)));
                outputs.A.Add(y.narrow(0, 0, 1));
                outputs.B.Add(y.narrow(0, 2, 1));
                Assert.That(y.isfinite().all().item<bool>(), "row without a sequence");
            }
        }

        LayerCase.AssertClose(torch.cat(outputs.A, 1), layer.Expected(a), Limit, "a");
        LayerCase.AssertClose(torch.cat(outputs.B, 1), layer.Expected(b), Limit, "b");
        Assert.That(pool.index_select(0, Indices(0, 2)).isnan().all().item<bool>(), "other slots");
    }

    [Test]
    public void AnEmptySequenceThatStartsAnewClearsItsSlot()
    {
        var layer = new LayerCase("MiniMax", Device);
        Tensor pool = torch.ones(2, LayerCase.Heads, LayerCase.HeadDim, LayerCase.HeadDim, device: Device);
        using (torch.no_grad())
        {
            Tensor y = layer.Module.call(
                layer.Input(1, 0), new PackedSequences(Offsets(0), pool, Indices(1), Flags(false)));
            Assert.That(y.shape, Is.EqualTo(new long[] { 1, 0, LayerCase.Hidden }));
        }

        Assert.That(pool[0].eq(1).all().item<bool>());
        Assert.That(pool[1].eq(0).all().item<bool>());
    }

    [Test]
    public void TheOperatorsTypeIsNotThatOfTheWeights([Values("MiniMax", "Ling")] string preset)
    {
        var wide = new LayerCase(preset, Device);
        using var narrow = new LightningAttn.Modules.LightningAttention(
            LayerCase.Hidden,
            LayerCase.Heads,
            LayerCase.LayerIndex,
            LayerCase.Layers,
            LayerCase.HeadDim,
            wide.Options with { OperatorType = ScalarType.BFloat16 },
            device: Device);
        narrow.load_state_dict(wide.Module.state_dict());
        Tensor x = wide.Input(2, 70);
        Tensor y = narrow.call(x);
        y.sum().backward();

        Assert.That(y.dtype, Is.EqualTo(ScalarType.Float32));
        double error = Accuracy.RelativeError(Values.Of(y), Values.Of(wide.Expected(x)));
        Assert.That(error, Is.InRange(1e-4, 0.01));
        Assert.That(narrow.parameters().Select(static p => p.grad!.dtype), Is.All.EqualTo(ScalarType.Float32));
        using LightningAttentionState state = narrow.new_state(2);
        Assert.That(state.kv.dtype, Is.EqualTo(ScalarType.Float32));
        using (torch.no_grad())
        {
            Tensor pieces = torch.cat([narrow.call(x.narrow(1, 0, 69), state), narrow.call(x.narrow(1, 69, 1), state)], 1);
            Assert.That(Accuracy.RelativeError(Values.Of(pieces), Values.Of(y)), Is.LessThan(0.01));
        }
    }

    [Test]
    public void WhatDoesNotFitIsSaid()
    {
        LayerCase layer = new("MiniMax", Device);
        LayerCase rotary = new("Ling", Device);
        Tensor pool = torch.zeros(2, LayerCase.Heads, LayerCase.HeadDim, LayerCase.HeadDim, device: Device);
        Tensor x = layer.Input(1, 4);
        Tensor rows = layer.Input(2, 1);
        Tensor mask = torch.ones(1, 4, device: Device);
        string on = pool.device.ToString();
        using var noGrad = torch.no_grad();

        Expect(rows, new PackedSequences(Offsets(1)), $"x is float32 [2, 1, 40] on {on}, expected [1, T, 40]");
        Expect(x, new PooledSequences(pool, Indices(0)), $"x is float32 [1, 4, 40] on {on}, expected [B, 1, 40]");
        Expect(rows, new PooledSequences(pool, Indices(0)), $"slot_idx is int64 [1] on {on}, expected");
        Expect(x, new PackedSequences(Offsets(4), positions: Indices(1, 2)), $"positions is int64 [2] on {on}, expected [T] = [4]");
        Expect(
            rows,
            new PooledSequences(pool, Indices(0, 1), torch.ones(2, device: Device)),
            $"positions is float32 [2] on {on}, expected [B] = [2], int64");
        Assert.That(
            () => layer.Module.call(x, new PackedSequences(Offsets(4)), mask),
            Throws.ArgumentException.With.Message.StartsWith("padding_mask is given, expected null"));
        Assert.That(
            () => layer.Module.call(layer.Input(1, 1), new PooledSequences(pool, Indices(0)), mask.narrow(1, 0, 1)),
            Throws.ArgumentException.With.Message.StartsWith("padding_mask is given, expected null"));
        Assert.That(
            () => rotary.Module.call(x, new PackedSequences(Offsets(4))),
            Throws.ArgumentException.With.Message.StartsWith("positions is null, expected [T] = [4]"));
        Assert.That(
            () => rotary.Module.call(rows, new PooledSequences(pool, Indices(0, 1))),
            Throws.ArgumentException.With.Message.StartsWith("positions is null, expected [B] = [2]"));

        void Expect(Tensor input, AttentionState state, string message) => Assert.That(
            () => layer.Module.call(input, state), Throws.ArgumentException.With.Message.StartsWith(message));
    }

    private Tensor Offsets(params long[] lengths) => torch.cat(
        [torch.zeros(1, ScalarType.Int64), torch.tensor(lengths).cumsum(0)]).to(Device);

    private Tensor Indices(params long[] indices) => torch.tensor(indices).to(Device);

    private Tensor Flags(params bool[] flags) => torch.tensor(flags).to(Device);

    /// <summary>Of each sequence's tokens from 0.</summary>
    private Tensor Positions(long[] lengths, int padding = 0) => torch.cat(
        [.. lengths.Select(static tokens => torch.arange(tokens)), torch.zeros(padding, ScalarType.Int64)]).to(Device);
}
