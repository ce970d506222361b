using LightningAttn.Tests.Support;

namespace LightningAttn.Tests.LightningAttention;

/// <summary>What calls must have in common: with themselves, with parts of themselves, and on many threads.</summary>
internal sealed class ConsistencyTests(DeviceType deviceType) : OperatorFixture(deviceType)
{
    private static readonly ScalarType[] s_dtypes = [ScalarType.Float32, ScalarType.BFloat16, ScalarType.Float16];

    [Test]
    public void TheSameCallTwiceIsBitwiseEqual([ValueSource(nameof(s_dtypes))] ScalarType dtype)
    {
        var attention = new AttentionCase { N = 209, Dtype = dtype, Hk = 1 };

        Assert.That(ForwardAndBackward(attention), Is.EqualTo(ForwardAndBackward(attention)));

        byte[][] ForwardAndBackward(AttentionCase attention)
        {
            AttentionCase.Inputs leaves = attention.Create(Device).Leaves();
            (Tensor output, Tensor states) = attention.Call(leaves);
            torch.autograd.backward([output, states], [torch.ones_like(output), torch.ones_like(states)]);
            return [Values.Bits(output), Values.Bits(states), .. leaves.All.Select(leaf => Values.Bits(leaf.grad!))];
        }
    }

    [Test]
    public void ASequenceAloneIsBitwiseTheSameAsInABatch([ValueSource(nameof(s_dtypes))] ScalarType dtype)
    {
        var attention = new AttentionCase { B = 5, N = 209, Dtype = dtype };
        AttentionCase.Inputs inputs = attention.Create(Device);
        (Tensor output, Tensor states) = attention.Call(inputs);
        (Tensor alone, Tensor aloneStates) = attention.Call(new AttentionCase.Inputs(
            inputs.Q.narrow(0, 3, 1),
            inputs.K.narrow(0, 3, 1),
            inputs.V.narrow(0, 3, 1),
            inputs.Rates,
            inputs.History!.narrow(0, 3, 1)));

        Assert.That(Values.Bits(alone), Is.EqualTo(Values.Bits(output.narrow(0, 3, 1))));
        Assert.That(Values.Bits(aloneStates), Is.EqualTo(Values.Bits(states.narrow(0, 3, 1))));
    }

    [Test]
    public void BlockSizeAndReturnedStatesLeaveTheOutputAlone([ValueSource(nameof(s_dtypes))] ScalarType dtype)
    {
        var attention = new AttentionCase { N = 300, Dtype = dtype };
        AttentionCase.Inputs inputs = attention.Create(Device);
        (Tensor output, Tensor states) = attention.Call(inputs);
        foreach (AttentionCase other in new[]
        {
            attention with { BlockSize = 128 },
            attention with { BlockStates = false },
        })
        {
            (Tensor otherOutput, Tensor otherStates) = other.Call(inputs);
            double[] expected = Values.Of(output);
            Assert.That(
                Accuracy.RelativeError(Values.Of(otherOutput), expected),
                Is.LessThanOrEqualTo(Accuracy.Limits.Of(dtype).Floor));
            Assert.That(
                Accuracy.RelativeError(Values.Of(otherStates.select(2, -1)), Values.Of(states.select(2, -1))),
                Is.LessThanOrEqualTo(Accuracy.Limits.Of(ScalarType.Float32).Floor));
        }
    }

    [Test]
    public void PrefillInTwoPartsEqualsOne(
        [Values(1, 63, 64, 100)] int first, [ValueSource(nameof(s_dtypes))] ScalarType dtype)
    {
        var attention = new AttentionCase { N = 209, Dtype = dtype, BlockStates = false };
        AttentionCase.Inputs inputs = attention.Create(Device);
        (Tensor output, Tensor state) = attention.Call(inputs);
        (Tensor head, Tensor carried) = Part(0, first, inputs.History);
        (Tensor tail, Tensor final) = Part(first, attention.N - first, carried.squeeze(2));

        Tensor joined = torch.cat([head, tail], 2);
        Accuracy.AssertClose("output", joined, Values.Of(output), null, dtype);
        Accuracy.AssertClose("state", final, Values.Of(state), null, ScalarType.Float32);

        (Tensor Output, Tensor State) Part(int start, int count, Tensor? history) => attention.Call(
            new AttentionCase.Inputs(
                inputs.Q.narrow(2, start, count),
                inputs.K.narrow(2, start, count),
                inputs.V.narrow(2, start, count),
                inputs.Rates,
                history));
    }

    [Test]
    public void PrefillInTwoPartsHasTheSameGradients()
    {
        var attention = new AttentionCase { N = 150, BlockStates = false };
        AttentionCase.Inputs whole = attention.Create(Device).Leaves();
        AttentionCase.Inputs parts = attention.Create(Device).Leaves();
        Tensor weight = Values.Normal(9, ScalarType.Float32, Device, 2, 2, 150, 32);
        (attention.Call(whole).Output * weight).sum().backward();

        (Tensor head, Tensor carried) = Part(0, 70, parts.History);
        (Tensor tail, _) = Part(70, 80, carried.squeeze(2));
        (torch.cat([head, tail], 2) * weight).sum().backward();

        foreach ((Tensor actual, Tensor expected) in parts.All.Zip(whole.All))
        {
            Accuracy.AssertClose("gradient", actual.grad!, Values.Of(expected.grad!), null, ScalarType.Float32);
        }

        (Tensor Output, Tensor State) Part(int start, int count, Tensor? history) => attention.Call(
            new AttentionCase.Inputs(
                parts.Q.narrow(2, start, count),
                parts.K.narrow(2, start, count),
                parts.V.narrow(2, start, count),
                parts.Rates,
                history));
    }

    [Test]
    public void SeveralThreadsAtOnce()
    {
        const int Threads = 4;
        const int Rounds = 10;
        var attention = new AttentionCase { N = 130 };
        (byte[] expected, byte[] expectedGradient) = Run();
        var threads = new List<Thread>();
        var faults = new System.Collections.Concurrent.ConcurrentBag<string>();
        for (int i = 0; i < Threads; i++)
        {
            var thread = new Thread(() =>
            {
                try
                {
                    for (int round = 0; round < Rounds; round++)
                    {
                        (byte[] output, byte[] gradient) = Run();
                        if (!output.AsSpan().SequenceEqual(expected))
                        {
                            faults.Add("output differs");
                        }

                        if (!gradient.AsSpan().SequenceEqual(expectedGradient))
                        {
                            faults.Add("gradient differs");
                        }
                    }
                }
                catch (Exception error)
                {
                    faults.Add(error.ToString());
                }
            });
            thread.Start();
            threads.Add(thread);
        }

        threads.ForEach(static thread => thread.Join());
        Assert.That(faults, Is.Empty);

        (byte[] Output, byte[] Gradient) Run()
        {
            using var scope = torch.NewDisposeScope();
            AttentionCase.Inputs leaves = attention.Create(Device).Leaves();
            (Tensor output, Tensor states) = attention.Call(leaves);
            (output.sum() + states.sum()).backward();
            return (Values.Bits(output), Values.Bits(leaves.K.grad!));
        }
    }
}
