using LightningAttn.Tests.Reference;
using LightningAttn.Tests.Support;
using TorchSharp.Modules;

namespace LightningAttn.Tests.LightningAttention;

/// <summary>The operators as parts of a program: layers, modules, autograd's modes and what is built on them.</summary>
internal sealed class CompositionTests(DeviceType deviceType) : OperatorFixture(deviceType)
{
    private const int Layers = 3;

    private static readonly ScalarType[] s_dtypes = [ScalarType.Float32, ScalarType.BFloat16, ScalarType.Float16];

    /// <summary>How the layers of a stack are run.</summary>
    internal enum Checkpointing
    {
        None,

        /// <summary>The layers' inputs are kept, and each layer is computed again by the caller.</summary>
        ByHand,

        /// <summary>By a custom function, whose backward pass runs autograd within autograd.</summary>
        ByFunction,
    }

    [Test]
    public void CheckpointingLeavesTheGradientsBitwiseAlone(
        [Values(Checkpointing.ByHand, Checkpointing.ByFunction)] Checkpointing checkpointing,
        [ValueSource(nameof(s_dtypes))] ScalarType dtype)
    {
        byte[][] expected = Gradients(Checkpointing.None);

        Assert.That(Gradients(checkpointing), Is.EqualTo(expected));

        byte[][] Gradients(Checkpointing how)
        {
            Layer[] layers = Stack(dtype);
            Tensor input = Values.Normal(20, dtype, Device, 2, 150, Layer.Width).requires_grad_(true);
            Tensor gradOutput = Values.Normal(21, dtype, Device, 2, 150, Layer.Width);
            if (how == Checkpointing.ByHand)
            {
                BackwardByHand(layers, input, gradOutput);
            }
            else
            {
                Tensor output = layers.Aggregate(input, (tensor, layer) => how == Checkpointing.None
                    ? layer.call(tensor)
                    : Checkpoint.Call(layer.call, tensor));
                torch.autograd.backward([output], [gradOutput]);
            }

            Assert.That(Values.Of(input.grad!), Has.All.Matches<double>(double.IsFinite));
            return [Values.Bits(input.grad!), .. layers.SelectMany(ParameterGradients)];
        }

        static void BackwardByHand(Layer[] layers, Tensor input, Tensor gradOutput)
        {
            var inputs = new List<Tensor> { input };
            using (torch.no_grad())
            {
                foreach (Layer layer in layers)
                {
                    inputs.Add(layer.call(inputs[^1]));
                }
            }

            for (int i = layers.Length - 1; i >= 0; i--)
            {
                Tensor again = i == 0 ? input : inputs[i].detach().requires_grad_(true);
                torch.autograd.backward([layers[i].call(again)], [gradOutput]);
                gradOutput = again.grad!;
            }
        }
    }

    [Test]
    public void GradientsAccumulateOverMicroBatches([ValueSource(nameof(s_dtypes))] ScalarType dtype)
    {
        Tensor batch = Values.Normal(20, dtype, Device, 4, 100, Layer.Width);
        Tensor gradOutput = Values.Normal(21, dtype, Device, 4, 100, Layer.Width);
        Tensor[] first = Gradients((0, 2));
        Tensor[] second = Gradients((2, 2));
        Tensor[] accumulated = Gradients((0, 2), (2, 2));
        Tensor[] whole = Gradients((0, 4));

        for (int i = 0; i < accumulated.Length; i++)
        {
            Assert.That(Values.Bits(accumulated[i]), Is.EqualTo(Values.Bits(first[i].add(second[i]))));
            Assert.That(
                Accuracy.RelativeError(Values.Of(accumulated[i]), Values.Of(whole[i])),
                Is.LessThan(Accuracy.Limits.Of(dtype).Ceiling));
        }

        Tensor[] Gradients(params (long Start, long Count)[] parts)
        {
            Layer layer = Stack(dtype)[0];
            foreach ((long start, long count) in parts)
            {
                torch.autograd.backward(
                    [layer.call(batch.narrow(0, start, count))], [gradOutput.narrow(0, start, count)]);
            }

            return [.. layer.parameters().Select(static parameter => parameter.grad!)];
        }
    }

    [Test]
    public void AFrozenModuleInEvalPassesGradientsOn()
    {
        Layer[] layers = Stack(ScalarType.Float32);
        Layer[] frozen = Stack(ScalarType.Float32);
        foreach (Layer layer in frozen)
        {
            layer.eval();
            foreach (Parameter parameter in layer.parameters())
            {
                parameter.requires_grad = false;
            }
        }

        Tensor input = Values.Normal(20, ScalarType.Float32, Device, 2, 100, Layer.Width);
        Tensor constant = Run(frozen, input);
        Tensor trainedLeaf = input.detach().requires_grad_(true);
        Tensor frozenLeaf = input.detach().requires_grad_(true);
        Tensor trained = Run(layers, trainedLeaf);
        trained.sum().backward();
        Run(frozen, frozenLeaf).sum().backward();

        Assert.That(constant.requires_grad, Is.False);
        Assert.That(Values.Bits(constant), Is.EqualTo(Values.Bits(trained)));
        Assert.That(Values.Bits(frozenLeaf.grad!), Is.EqualTo(Values.Bits(trainedLeaf.grad!)));
        Assert.That(frozen.SelectMany(static layer => layer.parameters()).All(static p => p.grad is null), Is.True);

        static Tensor Run(Layer[] layers, Tensor input) =>
            layers.Aggregate(input, static (tensor, layer) => layer.call(tensor));
    }

    [Test]
    public void WithoutRecordingTheResultsAreBitwiseTheSame([ValueSource(nameof(s_dtypes))] ScalarType dtype)
    {
        var attention = new AttentionCase { N = 150, Dtype = dtype };
        var decode = new DecodeCase { Dtype = dtype };
        byte[][] recorded = Results();
        using (torch.no_grad())
        {
            Assert.That(Results(), Is.EqualTo(recorded), "no_grad");
        }

        using (torch.inference_mode())
        {
            Assert.That(Results(), Is.EqualTo(recorded), "inference_mode");
        }

        byte[][] Results()
        {
            (Tensor output, Tensor states) = attention.Call(attention.Create(Device).Leaves());
            DecodeCase.Inputs token = decode.Create(Device);
            Tensor leaf = token.Q.detach().requires_grad_(true);
            Tensor pool = decode.States(Device, decode.B);
            Tensor slots = torch.tensor(new[] { 2L, 1, -1, 3 }).to(Device);
            Tensor inPlace = Functional.linear_decode_forward(leaf, token.K, token.V, pool, token.Rates, slots);
            (Tensor outOfPlace, Tensor state) =
                Functional.linear_decode_step(leaf, token.K, token.V, pool, token.Rates);
            return [.. new[] { output, states, inPlace, pool, outOfPlace, state }.Select(Values.Bits)];
        }
    }

    /// <summary>The second call takes the first one's output as its values and its final state as its history; q, k and
    /// the rates are those of both.</summary>
    [Test]
    public void CallsInOneGraphAddUpTheirGradients([ValueSource(nameof(s_dtypes))] ScalarType dtype)
    {
        var attention = new AttentionCase { N = 100, Dtype = dtype, BlockStates = false };
        AttentionCase.Inputs inputs = attention.Create(Device);
        Tensor gradOutput = Values.Normal(5, dtype, Device, 2, 2, 100, 32);
        Tensor gradStates = Values.Normal(6, ScalarType.Float32, Device, 2, 2, 1, 32, 32);
        TokenRecurrence.Problem one = attention.ReferenceProblem(inputs);
        TokenRecurrence.Result result = TokenRecurrence.Forward(one);
        TokenRecurrence.Problem two = one with { V = result.Output, History = FinalStates(result.States) };
        TokenRecurrence.Gradients last = TokenRecurrence.Backward(
            two, Values.Of(gradOutput), OfFinalStates(Values.Of(gradStates)));
        TokenRecurrence.Gradients first = TokenRecurrence.Backward(one, last.V, OfFinalStates(last.History));

        AttentionCase.Inputs leaves = Run(attention.Call);
        AttentionCase.Inputs eager = Run(attention.Eager);
        Check("dq", leaves.Q, Sum(first.Q, last.Q), eager.Q);
        Check("dk", leaves.K, Sum(first.K, last.K), eager.K);
        Check("dv", leaves.V, first.V, eager.V);
        Accuracy.AssertSumsClose(
            "ded", leaves.Rates.grad!, Sum(first.Rates, last.Rates), eager.Rates.grad, dtype);
        Check("dkv_history", leaves.History!, first.History, eager.History!);

        AttentionCase.Inputs Run(Func<AttentionCase.Inputs, (Tensor Output, Tensor States)> call)
        {
            AttentionCase.Inputs leaves = inputs.Leaves();
            (Tensor output, Tensor states) = call(leaves);
            Tensor history = states.squeeze(2).to(ScalarType.Float32);
            (output, states) = call(leaves with { V = output, History = history });
            torch.autograd.backward([output, states.to(ScalarType.Float32)], [gradOutput, gradStates]);
            return leaves;
        }

        void Check(string name, Tensor leaf, double[] expected, Tensor eagerLeaf) =>
            Accuracy.AssertClose(name, leaf.grad!, expected, eagerLeaf.grad, dtype);

        // The truth has the entering states too: entries 2 i and 2 i + 1 of head i.
        static double[] FinalStates(double[] states) =>
            [.. states.Chunk(32 * 32).Where(static (_, index) => index % 2 == 1).SelectMany(static state => state)];

        static double[] OfFinalStates(double[] gradients) =>
            [.. gradients.Chunk(32 * 32).SelectMany(static state => new double[32 * 32].Concat(state))];

        static double[] Sum(double[] a, double[] b) => [.. a.Zip(b, static (x, y) => x + y)];
    }

    [Test]
    public void CreateGraphGivesTheSameGradients([ValueSource(nameof(s_dtypes))] ScalarType dtype)
    {
        var attention = new AttentionCase { N = 100, Dtype = dtype };
        AttentionCase.Inputs leaves = attention.Create(Device).Leaves();
        IList<Tensor> expected = torch.autograd.grad([attention.Call(leaves).Output.sum()], [.. leaves.All]);
        Tensor loss = attention.Call(leaves).Output.sum();
        IList<Tensor> recorded = torch.autograd.grad([loss], [.. leaves.All], create_graph: true);

        Assert.That(recorded.Select(Values.Bits), Is.EqualTo(expected.Select(Values.Bits)));
        Assert.That(recorded.Select(static gradient => gradient.requires_grad), Has.All.True);

        // As constants the gradients may be used, and the loss itself has its gradients still.
        (loss + recorded[0].detach().square().sum()).backward();
        Assert.That(
            leaves.All.Select(static leaf => Values.Bits(leaf.grad!)), Is.EqualTo(expected.Select(Values.Bits)));
    }

    [Test]
    public void OtherOperatorsKeepTheirSecondDerivatives()
    {
        var attention = new AttentionCase { N = 70 };
        AttentionCase.Inputs leaves = attention.Create(Device).Leaves();
        Tensor weight = Values.Normal(20, ScalarType.Float32, Device, 8).requires_grad_(true);
        Tensor loss = attention.Call(leaves).Output.sum() + weight.pow(3).sum();
        IList<Tensor> gradients = torch.autograd.grad([loss], [weight, leaves.Q], create_graph: true);
        gradients[0].sum().backward();

        Accuracy.AssertClose(
            "6 w", weight.grad!, [.. Values.Of(weight).Select(static w => 6 * w)], null, ScalarType.Float32);
    }

    /// <summary>Layers of the same weights for each call.</summary>
    private Layer[] Stack(ScalarType dtype) =>
        [.. Enumerable.Range(0, Layers).Select(index => new Layer(30 + (10 * index), dtype, Device))];

    private static IEnumerable<byte[]> ParameterGradients(Layer layer) =>
        layer.parameters().Select(static parameter => Values.Bits(parameter.grad!));

    /// <summary>x + attention(x Wq, x Wk, x Wv): [B, N, width] to the same, with learnt rates.</summary>
    private sealed class Layer : nn.Module<Tensor, Tensor>
    {
        internal const int Width = Heads * HeadDim;

        private const int Heads = 2;
        private const int HeadDim = 16;

        // Keeps a stack of layers within the range of float16.
        private const double Scale = 0.01;

        private readonly Parameter _projections;
        private readonly Parameter _rates;

        internal Layer(int seed, ScalarType dtype, Device device)
            : base(nameof(Layer))
        {
            _projections = new Parameter(Values.Normal(seed, dtype, device, Width, 3 * Width) / Math.Sqrt(Width));
            _rates = new Parameter(torch.tensor(new[] { 0.5f, 0.02f }).to(device));
            RegisterComponents();
        }

        public override Tensor forward(Tensor input)
        {
            Tensor[] heads = [.. torch.matmul(input, _projections).chunk(3, -1)
                .Select(static part => part.reshape(part.size(0), part.size(1), Heads, HeadDim).transpose(1, 2))];
            (Tensor output, _) = Functional.lightning_attention(
                heads[0], heads[1], heads[2], _rates, scale: Scale);
            return input + output.transpose(1, 2).reshape(input.shape);
        }
    }
}
