using LightningAttn.Tests.Reference;
using LightningAttn.Tests.Support;

namespace LightningAttn.Tests.Varlen;

/// <summary>The gradients of lightning_attention_varlen.</summary>
internal sealed class VarlenGradientTests(DeviceType deviceType) : OperatorFixture(deviceType)
{
    private static readonly ScalarType[] s_dtypes = [ScalarType.Float32, ScalarType.BFloat16, ScalarType.Float16];

    [Test]
    public void EverySequenceIsBitwiseAsAlone(
        [ValueSource(nameof(s_dtypes))] ScalarType dtype, [Values] bool withRates)
    {
        var packed = new PackedCase { Dtype = dtype, Padding = (2, 66) };
        PackedCase.Inputs inputs = packed.Create(Device);
        Tensor weight = Values.Normal(23, dtype, Device, packed.Tokens, packed.Hv, packed.E);
        PackedCase.Inputs together = inputs.Leaves();
        together.Rates.requires_grad = withRates;
        Tensor output = packed.Call(together);
        torch.autograd.backward([output], [weight]);
        Assert.That(Values.Bits(output), Is.EqualTo(Values.Bits(packed.Call(inputs))));

        Tensor rates = torch.zeros(packed.Hv, device: Device);
        for (int i = 0; i < packed.Count; i++)
        {
            if (packed.Lengths[i] == 0)
            {
                continue;
            }

            PackedCase.Inputs alone = inputs.Leaves();
            alone.Rates.requires_grad = withRates;
            torch.autograd.backward([packed.Alone(alone, i).Output], [packed.Rows(weight, i)]);
            foreach ((Tensor actual, Tensor expected) in together.Differentiable.Zip(alone.Differentiable).Take(3))
            {
                Assert.That(
                    Values.Bits(packed.Rows(actual.grad!, i)),
                    Is.EqualTo(Values.Bits(packed.Rows(expected.grad!, i))),
                    $"{i}");
            }

            if (withRates)
            {
                rates += alone.Rates.grad!;
            }
        }

        foreach (Tensor leaf in together.Differentiable.Take(3))
        {
            Assert.That(Values.Of(leaf.grad!.narrow(0, 0, 2)), Is.All.EqualTo(0));
            Assert.That(Values.Of(leaf.grad!.narrow(0, packed.Tokens - 66, 66)), Is.All.EqualTo(0));
        }

        if (withRates)
        {
            Accuracy.AssertSumsClose("ded", together.Rates.grad!, Values.Of(rates), null, ScalarType.Float32);
        }
    }

    [Test]
    public void TheTruth([ValueSource(nameof(s_dtypes))] ScalarType dtype)
    {
        var packed = new PackedCase { Dtype = dtype, Lengths = [70, 1, 0, 130] };
        PackedCase.Inputs inputs = packed.Create(Device);
        Tensor weight = Values.Normal(23, dtype, Device, packed.Tokens, packed.Hv, packed.E);
        PackedCase.Inputs leaves = inputs.Leaves();
        torch.autograd.backward([packed.Call(leaves)], [weight]);
        PackedCase.Inputs eager = inputs.Leaves();
        double[] rates = new double[packed.Hv];
        foreach (int i in new[] { 0, 1, 3 })
        {
            TokenRecurrence.Gradients expected = TokenRecurrence.Backward(
                packed.ReferenceProblem(inputs, i), Values.Of(packed.Batch(weight, i)), null);
            (Tensor output, _) = EagerAttention.Attend(
                packed.Batch(eager.Q, i), packed.Batch(eager.K, i), packed.Batch(eager.V, i), eager.Rates,
                history: null, blockSize: 64, packed.Scale);
            torch.autograd.backward([output], [packed.Batch(weight, i)]);
            AssertClose("dq", leaves.Q, eager.Q, expected.Q);
            AssertClose("dk", leaves.K, eager.K, expected.K);
            AssertClose("dv", leaves.V, eager.V, expected.V);
            rates = [.. rates.Zip(expected.Rates, static (sum, term) => sum + term)];

            void AssertClose(string name, Tensor actual, Tensor eagerLeaf, double[] truth) => Accuracy.AssertClose(
                name, packed.Batch(actual.grad!, i), truth, packed.Batch(eagerLeaf.grad!, i), dtype, $"{i}");
        }

        Accuracy.AssertSumsClose("ded", leaves.Rates.grad!, rates, eager.Rates.grad, dtype);
    }

    [Test]
    public void OnlyWhatIsAskedFor()
    {
        var packed = new PackedCase();
        PackedCase.Inputs all = packed.Create(Device).Leaves();
        Tensor weight = Values.Normal(23, ScalarType.Float32, Device, packed.Tokens, packed.Hv, packed.E);
        torch.autograd.backward([packed.Call(all)], [weight]);
        for (int wanted = 0; wanted < 4; wanted++)
        {
            PackedCase.Inputs one = packed.Create(Device);
            one.Differentiable[wanted].requires_grad = true;
            torch.autograd.backward([packed.Call(one)], [weight]);
            Assert.That(
                Values.Bits(one.Differentiable[wanted].grad!), Is.EqualTo(Values.Bits(all.Differentiable[wanted].grad!)));
        }
    }

    /// <summary>A directional derivative in float64 against the gradient.</summary>
    [Test]
    public void FiniteDifferences()
    {
        if (IsCuda)
        {
            Assert.Ignore("float64 is supported on the CPU alone");
        }

        const double Step = 1e-5;
        var packed = new PackedCase { Dtype = ScalarType.Float64, D = 5, E = 7, Padding = (1, 0) };
        PackedCase.Inputs inputs = packed.Create(Device);
        Tensor weight = Values.Normal(23, ScalarType.Float64, Device, packed.Tokens, packed.Hv, packed.E);
        PackedCase.Inputs leaves = inputs.Leaves();
        torch.autograd.backward([packed.Call(leaves)], [weight]);
        for (int input = 0; input < 4; input++)
        {
            Tensor direction = Values.Normal(24 + input, ScalarType.Float64, Device, inputs.Differentiable[input].shape);
            double expected = (Loss(Step) - Loss(-Step)) / (2 * Step);
            double actual = Values.Of((leaves.Differentiable[input].grad! * direction).sum())[0];
            Assert.That(actual, Is.EqualTo(expected).Within(1e-6 * Math.Max(1, Math.Abs(expected))), $"input {input}");

            double Loss(double step)
            {
                Tensor[] moved = inputs.Differentiable;
                moved[input] = moved[input] + (direction * step);
                Tensor output = packed.Call(new PackedCase.Inputs(moved[0], moved[1], moved[2], moved[3], inputs.Offsets));
                return Values.Of((output * weight).sum())[0];
            }
        }
    }

    [Test]
    public void EmptyBatches([Values(0, 2)] int sequences, [Values(0, 5)] int padding)
    {
        var packed = new PackedCase { Lengths = new long[sequences], Padding = (0, padding) };
        PackedCase.Inputs leaves = packed.Create(Device).Leaves();
        packed.Call(leaves).sum().backward();

        foreach (Tensor leaf in leaves.Differentiable)
        {
            Assert.That(leaf.grad!.shape, Is.EqualTo(leaf.shape));
            Assert.That(Values.Of(leaf.grad!), Is.All.EqualTo(0));
        }
    }

    [Test]
    public void SecondDerivativesAreRefused()
    {
        PackedCase.Inputs leaves = new PackedCase().Create(Device).Leaves();
        Tensor output = new PackedCase().Call(leaves);
        IList<Tensor> gradients = torch.autograd.grad(
            [output.square().sum()], [leaves.Q], create_graph: true, retain_graph: true);

        Assert.That(
            () => gradients[0].square().sum().backward(),
            Throws.TypeOf<System.Runtime.InteropServices.ExternalException>());
        Assert.That(
            Native.LastBackwardError,
            Is.TypeOf<NotSupportedException>().With.Message.Contains("lightning_attention_varlen"));
    }

    [Test]
    public void WithAPoolNothingIsDifferentiable()
    {
        var packed = new PackedCase();
        PackedCase.Inputs inputs = packed.Create(Device);
        Tensor pool = torch.zeros([packed.Count, packed.Hv, packed.D, packed.E], device: Device);
        foreach (Tensor argument in inputs.Differentiable.Append(pool))
        {
            argument.requires_grad = true;
            Assert.That(
                () => packed.Call(inputs, pool),
                Throws.InvalidOperationException.With.Message.Contains("not differentiable with a state_pool"));
            using (torch.no_grad())
            {
                Assert.That(packed.Call(inputs, pool).requires_grad, Is.False);
            }

            argument.requires_grad = false;
        }
    }
}
