using LightningAttn.Tests.Reference;

namespace LightningAttn.Tests.Support;

/// <summary>
/// One call of lightning_attention on random inputs, checked against the token recurrence: output, states and all
/// gradients.
/// </summary>
internal sealed record AttentionCase
{
    public int B { get; init; } = 2;

    public int Hk { get; init; } = 2;

    public int Hv { get; init; } = 2;

    public int N { get; init; } = 80;

    public int D { get; init; } = 32;

    public int E { get; init; } = 32;

    public ScalarType Dtype { get; init; } = ScalarType.Float32;

    /// <summary>The rate of every head; null gives each head another one.</summary>
    public double? Rate { get; init; }

    public int BlockSize { get; init; } = 64;

    public double Scale { get; init; } = 1;

    public bool BlockStates { get; init; } = true;

    public bool History { get; init; } = true;

    public Layout Layout { get; init; } = Layout.Contiguous;

    public HistoryDecay HistoryDecay { get; init; } = HistoryDecay.Exact;

    internal ScalarType StateType => Dtype == ScalarType.Float64 ? ScalarType.Float64 : ScalarType.Float32;

    private delegate void Comparison(
        string name, Tensor actual, double[] expected, Tensor? eager, ScalarType dtype, string context);

    /// <summary>Inputs of a call; q, k, v in the case's layout.</summary>
    internal sealed record Inputs(Tensor Q, Tensor K, Tensor V, Tensor Rates, Tensor? History)
    {
        internal IEnumerable<Tensor> All =>
            new[] { Q, K, V, Rates, History }.Where(static tensor => tensor is not null)!;

        /// <summary>The same values and strides as leaves that require gradients.</summary>
        internal Inputs Leaves() => new(Leaf(Q), Leaf(K), Leaf(V), Leaf(Rates), History is null ? null : Leaf(History));

        private static Tensor Leaf(Tensor tensor) => tensor.detach().requires_grad_(true);
    }

    internal Inputs Create(Device device)
    {
        Tensor q = Values.Normal(1, Dtype, device, B, Hk, N, D) / Math.Sqrt(D);
        return new Inputs(
            q.In(Layout),
            Values.Normal(2, Dtype, device, B, Hk, N, D).In(Layout),
            Values.Normal(3, Dtype, device, B, Hv, N, E).In(Layout),
            torch.tensor(HeadRates(), dtype: StateType).to(device),
            History ? Values.Normal(4, StateType, device, B, Hv, D, E) : null);
    }

    internal (Tensor Output, Tensor States) Call(Inputs inputs) => Functional.lightning_attention(
        inputs.Q,
        inputs.K,
        inputs.V,
        inputs.Rates,
        BlockSize,
        inputs.History,
        Scale,
        BlockStates,
        HistoryDecay);

    /// <summary>The truth's problem for the exact values of the inputs.</summary>
    internal TokenRecurrence.Problem ReferenceProblem(Inputs inputs) => new(
        B,
        Hk,
        Hv,
        N,
        D,
        E,
        Values.Of(inputs.Q),
        Values.Of(inputs.K),
        Values.Of(inputs.V),
        Values.Of(inputs.Rates),
        inputs.History is null ? null : Values.Of(inputs.History))
    {
        // Without block states the one returned entry is the final state, as if there were no block boundary.
        BlockSize = BlockStates ? BlockSize : int.MaxValue / 2,
        Scale = Scale,
    };

    internal void CheckForward(Device device)
    {
        Inputs inputs = Create(device);
        TokenRecurrence.Problem problem = ReferenceProblem(inputs);
        TokenRecurrence.Result expected = TokenRecurrence.Forward(problem);
        (Tensor output, Tensor states) = Call(inputs);
        (Tensor eagerOutput, Tensor eagerStates) = Eager(inputs);
        AssertShapes(output, states);
        Accuracy.AssertClose("output", output, expected.Output, eagerOutput, Dtype, ToString());
        Accuracy.AssertStatesClose("kv", states, ReturnedStates(problem, expected.States), eagerStates, Dtype, ToString());
    }

    /// <summary>All gradients, from gradients of the output and of every returned state.</summary>
    internal void CheckBackward(Device device, bool fromOutput = true, bool fromStates = true)
    {
        Inputs inputs = Create(device);
        TokenRecurrence.Problem problem = ReferenceProblem(inputs);
        Tensor gradOutput = Values.Normal(5, Dtype, device, B, Hv, N, E);
        int stateCount = BlockStates ? problem.Blocks + 1 : 1;
        Tensor gradStates = Values.Normal(6, StateType, device, B, Hv, stateCount, D, E);
        TokenRecurrence.Gradients expected = TokenRecurrence.Backward(
            problem,
            fromOutput ? Values.Of(gradOutput) : null,
            fromStates ? GradientsOfAllStates(problem, Values.Of(gradStates)) : null);

        Inputs leaves = inputs.Leaves();
        (Tensor output, Tensor states) = Call(leaves);
        Backward(output, states, gradOutput, gradStates, fromOutput, fromStates);
        Inputs eagerLeaves = inputs.Leaves();
        (Tensor eagerOutput, Tensor eagerStates) = Eager(eagerLeaves);
        Backward(eagerOutput, eagerStates.to(StateType), gradOutput, gradStates, fromOutput, fromStates);

        AssertGradient("dq", leaves.Q, expected.Q, eagerLeaves.Q);
        AssertGradient("dk", leaves.K, expected.K, eagerLeaves.K);
        AssertGradient("dv", leaves.V, expected.V, eagerLeaves.V);
        AssertGradient("ded", leaves.Rates, expected.Rates, eagerLeaves.Rates, Accuracy.AssertSumsClose);
        if (leaves.History is not null)
        {
            AssertGradient("dkv_history", leaves.History, expected.History, eagerLeaves.History!);
        }
    }

    internal static void Backward(
        Tensor output, Tensor states, Tensor gradOutput, Tensor gradStates, bool fromOutput, bool fromStates)
    {
        var outputs = new List<Tensor>();
        var gradients = new List<Tensor>();
        if (fromOutput)
        {
            outputs.Add(output);
            gradients.Add(gradOutput);
        }

        if (fromStates)
        {
            outputs.Add(states);
            gradients.Add(gradStates);
        }

        torch.autograd.backward(outputs, gradients);
    }

    /// <summary>The same maths in torch operators and the input's type: what rounding alone costs.</summary>
    internal (Tensor Output, Tensor States) Eager(Inputs inputs)
    {
        (Tensor output, Tensor states) = EagerAttention.Attend(
            inputs.Q, inputs.K, inputs.V, inputs.Rates, inputs.History, BlockSize, Scale);
        return (output, BlockStates ? states : states.narrow(2, states.size(2) - 1, 1));
    }

    private double[] HeadRates() =>
        [.. Enumerable.Range(0, Hv).Select(head => Rate ?? (0.7 * Math.Pow(0.4, head)))];

    private void AssertShapes(Tensor output, Tensor states)
    {
        int blocks = (N + BlockSize - 1) / BlockSize;
        Assert.Multiple(() =>
        {
            Assert.That(output.shape, Is.EqualTo(new long[] { B, Hv, N, E }));
            Assert.That(output.dtype, Is.EqualTo(Dtype));
            Assert.That(states.shape, Is.EqualTo(new long[] { B, Hv, BlockStates ? blocks + 1 : 1, D, E }));
            Assert.That(states.dtype, Is.EqualTo(StateType));
        });
    }

    private void AssertGradient(
        string name, Tensor leaf, double[] expected, Tensor eagerLeaf, Comparison? compare = null)
    {
        Tensor? gradient = leaf.grad;
        Assert.That(gradient, Is.Not.Null, $"{name} is missing [{this}]");
        Assert.That(gradient!.shape, Is.EqualTo(leaf.shape));
        Assert.That(gradient.dtype, Is.EqualTo(leaf.dtype));
        (compare ?? Accuracy.AssertClose)(name, gradient, expected, eagerLeaf.grad, Dtype, ToString());
    }

    private double[] ReturnedStates(TokenRecurrence.Problem problem, double[] states)
    {
        if (BlockStates)
        {
            return states;
        }

        int size = D * E;
        int entries = problem.Blocks + 1;
        return [.. Enumerable.Range(0, B * Hv).SelectMany(
            head => states.Skip(((head * entries) + entries - 1) * size).Take(size))];
    }

    private double[] GradientsOfAllStates(TokenRecurrence.Problem problem, double[] gradients)
    {
        int entries = problem.Blocks + 1;
        if (BlockStates || entries == 1)
        {
            return gradients;
        }

        int size = D * E;
        var all = new double[B * Hv * entries * size];
        for (int head = 0; head < B * Hv; head++)
        {
            gradients.AsSpan(head * size, size).CopyTo(all.AsSpan(((head * entries) + entries - 1) * size));
        }

        return all;
    }
}
