using LightningAttn.Tests.Reference;
using LightningAttn.Tests.Support;

namespace LightningAttn.Tests.LinearDecode;

/// <summary>linear_decode_step: the out-of-place form, whose gradients flow through the state.</summary>
internal sealed class DecodeStepTests(DeviceType deviceType) : OperatorFixture(deviceType)
{
    private static readonly ScalarType[] s_dtypes = [ScalarType.Float32, ScalarType.BFloat16, ScalarType.Float16];

    [Test]
    public void OutputAndState(
        [ValueSource(nameof(s_dtypes))] ScalarType dtype,
        [ValueSource(nameof(s_dtypes))] ScalarType stateDtype,
        [Values(1, 2)] int heads)
    {
        var decode = new DecodeCase { Hk = heads, Dtype = dtype, CacheDtype = stateDtype, D = 24, E = 40 };
        DecodeCase.Inputs inputs = decode.Create(Device);
        Tensor state = decode.States(Device, decode.B).transpose(2, 3).contiguous().transpose(2, 3);
        byte[] before = Values.Bits(state);
        TokenRecurrence.Result expected =
            TokenRecurrence.Forward(decode.ReferenceProblem(inputs, Values.Of(state)));
        (Tensor output, Tensor newState) = Call(inputs, state);

        Assert.That(output.shape, Is.EqualTo(new long[] { decode.B, decode.Hv * decode.E }));
        Assert.That(newState.shape, Is.EqualTo(state.shape));
        Assert.That(newState.dtype, Is.EqualTo(stateDtype));
        Accuracy.AssertClose("output", output, expected.Output, null, dtype);
        Accuracy.AssertClose("new_state", newState, decode.NewStates(expected), null, stateDtype);
        Assert.That(Values.Bits(state), Is.EqualTo(before));
    }

    [Test]
    public void Gradients(
        [ValueSource(nameof(s_dtypes))] ScalarType dtype,
        [Values(ScalarType.Float32, ScalarType.BFloat16)] ScalarType stateDtype,
        [Values] bool fromOutput,
        [Values] bool fromState)
    {
        if (!fromOutput && !fromState)
        {
            return;
        }

        var decode = new DecodeCase { Hk = 1, Dtype = dtype, CacheDtype = stateDtype };
        DecodeCase.Inputs inputs = decode.Create(Device);
        Tensor state = decode.States(Device, decode.B);
        Tensor gradOutput = Values.Normal(16, dtype, Device, decode.B, decode.Hv * decode.E);
        Tensor gradState = decode.States(Device, decode.B, seed: 17);
        TokenRecurrence.Gradients expected = TokenRecurrence.Backward(
            decode.ReferenceProblem(inputs, Values.Of(state)),
            fromOutput ? Values.Of(gradOutput) : null,
            fromState ? FinalOnly(decode, Values.Of(gradState)) : null);

        DecodeCase.Inputs leaves = new(Leaf(inputs.Q), Leaf(inputs.K), Leaf(inputs.V), Leaf(inputs.Rates));
        Tensor stateLeaf = Leaf(state);
        (Tensor output, Tensor newState) = Call(leaves, stateLeaf);
        AttentionCase.Backward(output, newState, gradOutput, gradState, fromOutput, fromState);

        (DecodeCase.Inputs eager, Tensor eagerState) = decode.EagerGradients(
            inputs, state, fromOutput ? gradOutput : null, fromState ? gradState : null);
        Accuracy.AssertClose("dq", leaves.Q.grad!, expected.Q, eager.Q.grad, dtype);
        Accuracy.AssertClose("dk", leaves.K.grad!, expected.K, eager.K.grad, dtype);
        Accuracy.AssertClose("dv", leaves.V.grad!, expected.V, eager.V.grad, dtype);
        Accuracy.AssertSumsClose("dslope_rate", leaves.Rates.grad!, expected.Rates, eager.Rates.grad, dtype);
        Assert.That(stateLeaf.grad!.dtype, Is.EqualTo(stateDtype));
        Accuracy.AssertClose("dstate", stateLeaf.grad!, expected.History, eagerState.grad, stateDtype);
    }

    [Test]
    public void TrainingThroughStepsHasTheGradientsOfThePrefill()
    {
        var attention = new AttentionCase { N = 12, Hk = 1, BlockStates = false };
        AttentionCase.Inputs whole = attention.Create(Device).Leaves();
        AttentionCase.Inputs stepped = attention.Create(Device).Leaves();
        Tensor weight = Values.Normal(9, ScalarType.Float32, Device, 2, 2, 12, 32);
        (attention.Call(whole).Output * weight).sum().backward();

        Tensor state = stepped.History!;
        var outputs = new List<Tensor>();
        for (int token = 0; token < attention.N; token++)
        {
            (Tensor output, state) = Functional.linear_decode_step(
                stepped.Q.narrow(2, token, 1),
                stepped.K.narrow(2, token, 1),
                stepped.V.narrow(2, token, 1),
                state,
                stepped.Rates);
            outputs.Add(output.reshape(2, 2, 1, 32));
        }

        (torch.cat(outputs, 2) * weight).sum().backward();
        foreach ((Tensor actual, Tensor expected) in stepped.All.Zip(whole.All))
        {
            Accuracy.AssertClose("gradient", actual.grad!, Values.Of(expected.grad!), null, ScalarType.Float32);
        }
    }

    [Test]
    public void EmptyBatch()
    {
        var decode = new DecodeCase { B = 0 };
        DecodeCase.Inputs inputs = decode.Create(Device);
        Tensor rates = Leaf(inputs.Rates);
        (Tensor output, Tensor newState) = Call(inputs with { Rates = rates }, decode.States(Device, 0));
        (output.sum() + newState.sum()).backward();

        Assert.That(output.shape, Is.EqualTo(new long[] { 0, 64 }));
        Assert.That(newState.shape, Is.EqualTo(new long[] { 0, 2, 32, 32 }));
        Assert.That(Values.Of(rates.grad!), Is.All.Zero);
    }

    private static (Tensor Output, Tensor NewState) Call(DecodeCase.Inputs inputs, Tensor state) =>
        Functional.linear_decode_step(inputs.Q, inputs.K, inputs.V, state, inputs.Rates);

    private static Tensor Leaf(Tensor tensor) => tensor.detach().clone().requires_grad_(true);

    /// <summary>Zeros for the old states, which are not returned, and the gradients of the new ones.</summary>
    private static double[] FinalOnly(DecodeCase decode, double[] gradients)
    {
        int size = decode.D * decode.E;
        return [.. Enumerable.Range(0, decode.B * decode.Hv).SelectMany(
            head => new double[size].Concat(gradients.Skip(head * size).Take(size)))];
    }
}
