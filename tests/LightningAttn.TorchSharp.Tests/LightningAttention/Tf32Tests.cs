using LightningAttn.Tests.Reference;
using LightningAttn.Tests.Support;

namespace LightningAttn.Tests.LightningAttention;

/// <summary>float32 on CUDA follows torch's switch for tf32 in matrix products, and nothing else does.</summary>
internal sealed class Tf32Tests(DeviceType deviceType) : OperatorFixture(deviceType)
{
    private static readonly string[] s_followers = ["output", "kv", "dq", "dk", "dv", "dkv_history"];

    private bool _allowedBefore;

    [SetUp]
    public void KeepTheSetting() => _allowedBefore = torch.backends.cuda.matmul.allow_tf32;

    [TearDown]
    public void RestoreTheSetting() => torch.backends.cuda.matmul.allow_tf32 = _allowedBefore;

    [TestCase(true, 64, 40)]
    [TestCase(true, 104, 192)]
    [TestCase(true, 256, 128)]
    [TestCase(false, 64, 40)]
    [TestCase(false, 104, 192)]
    [TestCase(false, 256, 128)]
    public void ErrorsAreThoseOfTheSetting(bool allowed, int headDimQk, int headDimV)
    {
        var attention = new AttentionCase { Hk = 1, N = 150, D = headDimQk, E = headDimV };
        TokenRecurrence.Problem problem = attention.ReferenceProblem(attention.Create(Device));
        TokenRecurrence.Result result = TokenRecurrence.Forward(problem);
        TokenRecurrence.Gradients gradients = TokenRecurrence.Backward(
            problem, Values.Of(GradOutput(attention)), Values.Of(GradStates(attention)));
        double[][] expected =
            [result.Output, result.States, gradients.Q, gradients.K, gradients.V, gradients.History];
        Dictionary<string, Tensor> actual = Run(attention, allowed);

        Assert.Multiple(() =>
        {
            foreach ((string name, double[] truth) in s_followers.Zip(expected))
            {
                double error = Accuracy.RelativeError(Values.Of(actual[name]), truth);
                Assert.That(error, allowed && IsCuda ? Is.InRange(1e-6, 2e-3) : Is.LessThanOrEqualTo(1e-5), name);
            }
        });
    }

    [Test]
    public void TheGradientOfRatesDoesNotFollow()
    {
        var attention = new AttentionCase { N = 150 };
        byte[] allowed = Values.Bits(Run(attention, allowed: true)["ded"]);
        byte[] forbidden = Values.Bits(Run(attention, allowed: false)["ded"]);

        Assert.That(allowed, Is.EqualTo(forbidden));
    }

    [Test]
    public void OtherTypesDoNotFollow([Values(ScalarType.BFloat16, ScalarType.Float16)] ScalarType dtype)
    {
        var attention = new AttentionCase { N = 150, Dtype = dtype };
        AssertSameBits(Run(attention, allowed: true), Run(attention, allowed: false));
    }

    [Test]
    public void TheBackwardPassFollowsItsCall([Values] bool allowed)
    {
        var attention = new AttentionCase { N = 150 };
        AssertSameBits(Run(attention, allowed, allowedLater: !allowed), Run(attention, allowed));
    }

    [Test]
    public void VllmCompatibleFollowsToo()
    {
        var attention = new AttentionCase { N = 150, HistoryDecay = HistoryDecay.VllmCompatible };
        byte[] allowed = Values.Bits(Run(attention, allowed: true)["kv"]);
        byte[] forbidden = Values.Bits(Run(attention, allowed: false)["kv"]);

        Assert.That(allowed, IsCuda ? Is.Not.EqualTo(forbidden) : Is.EqualTo(forbidden));
    }

    [Test]
    public void DecodingDoesNotFollow()
    {
        AssertSameBits(Step(allowed: true), Step(allowed: false));

        Dictionary<string, Tensor> Step(bool allowed)
        {
            torch.backends.cuda.matmul.allow_tf32 = allowed;
            AttentionCase.Inputs inputs = new AttentionCase { N = 1 }.Create(Device).Leaves();
            (Tensor output, Tensor state) = Functional.linear_decode_step(
                inputs.Q, inputs.K, inputs.V, inputs.History!, inputs.Rates);
            torch.autograd.backward([output, state], [torch.ones_like(output), torch.ones_like(state)]);
            return new()
            {
                ["output"] = output,
                ["state"] = state,
                ["dq"] = inputs.Q.grad!,
                ["dk"] = inputs.K.grad!,
                ["dv"] = inputs.V.grad!,
                ["dstate"] = inputs.History!.grad!,
            };
        }
    }

    [Test]
    public void DescribeNamesTheKernelOfTheSetting([Values] bool allowed)
    {
        torch.backends.cuda.matmul.allow_tf32 = allowed;

        Assert.That(
            Native.Describe(Operation.Forward, ScalarType.Float32, Device, 64, 64).Contains("tf32"),
            Is.EqualTo(allowed && IsCuda));
        Assert.That(
            Native.Describe(Operation.Backward, ScalarType.Float32, Device, 64, 64).Contains("tf32"),
            Is.EqualTo(allowed && IsCuda));
    }

    private Tensor GradOutput(AttentionCase attention) => Values.Normal(
        5, attention.Dtype, Device, attention.B, attention.Hv, attention.N, attention.E);

    private Tensor GradStates(AttentionCase attention)
    {
        int blocks = (attention.N + attention.BlockSize - 1) / attention.BlockSize;
        return Values.Normal(
            6, attention.StateType, Device, attention.B, attention.Hv, blocks + 1, attention.D, attention.E);
    }

    /// <summary>All results of one call; the setting may change between it and its backward pass.</summary>
    private Dictionary<string, Tensor> Run(AttentionCase attention, bool allowed, bool? allowedLater = null)
    {
        torch.backends.cuda.matmul.allow_tf32 = allowed;
        AttentionCase.Inputs leaves = attention.Create(Device).Leaves();
        (Tensor output, Tensor states) = attention.Call(leaves);
        torch.backends.cuda.matmul.allow_tf32 = allowedLater ?? allowed;
        torch.autograd.backward([output, states], [GradOutput(attention), GradStates(attention)]);
        return new()
        {
            ["output"] = output,
            ["kv"] = states,
            ["dq"] = leaves.Q.grad!,
            ["dk"] = leaves.K.grad!,
            ["dv"] = leaves.V.grad!,
            ["dkv_history"] = leaves.History!.grad!,
            ["ded"] = leaves.Rates.grad!,
        };
    }

    private static void AssertSameBits(Dictionary<string, Tensor> actual, Dictionary<string, Tensor> expected)
    {
        foreach ((string name, Tensor tensor) in actual)
        {
            Assert.That(Values.Bits(tensor), Is.EqualTo(Values.Bits(expected[name])), name);
        }
    }
}
