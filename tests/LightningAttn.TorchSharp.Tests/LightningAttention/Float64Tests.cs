using LightningAttn.Tests.Reference;
using LightningAttn.Tests.Support;

namespace LightningAttn.Tests.LightningAttention;

/// <summary>float64 and head sizes that only the CPU has: the tight comparisons, and finite differences.</summary>
[TestFixture]
internal sealed class Float64Tests
{
    private const double Step = 1e-5;

    private DisposeScope? _scope;

    [SetUp]
    public void OpenScope() => _scope = torch.NewDisposeScope();

    [TearDown]
    public void CloseScope() => _scope?.Dispose();

    [Test]
    public void Lengths([Values(0, 1, 63, 64, 65, 209)] int tokens, [Values] bool history) =>
        Check(new AttentionCase { N = tokens, History = history });

    [Test]
    public void Rates([Values(0, 1e-4, 1, 100)] double rate) => Check(new AttentionCase { N = 150, Rate = rate });

    [Test]
    public void AnyHeadDims([Values(1, 5, 17, 80, 300)] int headDimQk, [Values(1, 3, 33)] int headDimV) =>
        Check(new AttentionCase { N = 70, D = headDimQk, E = headDimV });

    [Test]
    public void AnyHeadDimsInEveryType(
        [Values(1, 5, 17)] int headDim,
        [Values(ScalarType.Float32, ScalarType.BFloat16, ScalarType.Float16)] ScalarType dtype)
    {
        var attention = new AttentionCase { N = 70, D = headDim, E = headDim + 2, Dtype = dtype };
        attention.CheckForward(torch.CPU);
        attention.CheckBackward(torch.CPU);
    }

    [Test]
    public void Layouts([Values] Layout layout) => Check(new AttentionCase { Layout = layout, D = 7, E = 9, Hk = 1 });

    [Test]
    public void RatesMayBeFloat32()
    {
        AttentionCase attention = new() { Dtype = ScalarType.Float64 };
        AttentionCase.Inputs inputs = attention.Create(torch.CPU);
        Tensor narrow = inputs.Rates.to(ScalarType.Float32).requires_grad_(true);
        Tensor wide = narrow.detach().to(ScalarType.Float64).requires_grad_(true);
        Tensor output = attention.Call(inputs with { Rates = narrow }).Output;
        Tensor expected = attention.Call(inputs with { Rates = wide }).Output;
        output.sum().backward();
        expected.sum().backward();

        Assert.That(Values.Bits(output), Is.EqualTo(Values.Bits(expected)));
        Assert.That(narrow.grad!.dtype, Is.EqualTo(ScalarType.Float32));
        Assert.That(Values.Bits(narrow.grad!), Is.EqualTo(Values.Bits(wide.grad!.to(ScalarType.Float32))));
    }

    /// <summary>
    /// The directional derivative along a random direction of each input, from the output and every state.
    /// </summary>
    [Test]
    public void FiniteDifferences([Values] HistoryDecay historyDecay, [Range(0, 4)] int input)
    {
        var attention = new AttentionCase
        {
            Dtype = ScalarType.Float64,
            Hk = 1,
            N = 300,
            D = 4,
            E = 3,
            BlockSize = 192,
            Scale = 0.7,
            HistoryDecay = historyDecay,
        };
        AttentionCase.Inputs inputs = attention.Create(torch.CPU);
        AttentionCase.Inputs leaves = inputs.Leaves();
        Tensor weight = Values.Normal(7, ScalarType.Float64, torch.CPU, 2, 2, 300, 3);
        Tensor stateWeight = Values.Normal(8, ScalarType.Float64, torch.CPU, 2, 2, 3, 4, 3);
        Loss(leaves).backward();

        Tensor direction = Values.Normal(9, ScalarType.Float64, torch.CPU, inputs.All.ElementAt(input).shape);
        double derivative = (leaves.All.ElementAt(input).grad! * direction).sum().item<double>();
        double difference = (Shifted(Step) - Shifted(-Step)) / (2 * Step);

        Assert.That(derivative, Is.EqualTo(difference).Within(1e-6).Percent);

        Tensor Loss(AttentionCase.Inputs arguments)
        {
            (Tensor output, Tensor states) = attention.Call(arguments);
            return (output * weight).sum() + (states * stateWeight).sum();
        }

        double Shifted(double step)
        {
            Tensor[] shifted = [.. inputs.All];
            shifted[input] = shifted[input] + (direction * step);
            return Loss(new AttentionCase.Inputs(shifted[0], shifted[1], shifted[2], shifted[3], shifted[4]))
                .item<double>();
        }
    }

    /// <summary>The reference's own adjoint, so that nothing rests on it unproven.</summary>
    [Test]
    public void TheReferenceAgreesWithItsFiniteDifferences([Range(0, 4)] int input)
    {
        var attention = new AttentionCase { Dtype = ScalarType.Float64, Hk = 1, N = 70, D = 4, E = 3, Scale = 0.7 };
        TokenRecurrence.Problem problem = attention.ReferenceProblem(attention.Create(torch.CPU));
        double[] gradOutput = Values.Of(Values.Normal(7, ScalarType.Float64, torch.CPU, 2 * 2 * 70 * 3));
        double[] gradStates = Values.Of(Values.Normal(8, ScalarType.Float64, torch.CPU, 2 * 2 * 3 * 4 * 3));
        TokenRecurrence.Gradients gradients = TokenRecurrence.Backward(problem, gradOutput, gradStates);
        double[] gradient = new[] { gradients.Q, gradients.K, gradients.V, gradients.Rates, gradients.History }[input];
        double[] direction = Values.Of(Values.Normal(9, ScalarType.Float64, torch.CPU, gradient.Length));

        double difference = (Shifted(Step) - Shifted(-Step)) / (2 * Step);
        Assert.That(Dot(gradient, direction), Is.EqualTo(difference).Within(1e-6).Percent);

        double Shifted(double step)
        {
            TokenRecurrence.Result result = TokenRecurrence.Forward(input switch
            {
                0 => problem with { Q = Moved(problem.Q) },
                1 => problem with { K = Moved(problem.K) },
                2 => problem with { V = Moved(problem.V) },
                3 => problem with { Rates = Moved(problem.Rates) },
                _ => problem with { History = Moved(problem.History!) },
            });
            return Dot(result.Output, gradOutput) + Dot(result.States, gradStates);

            double[] Moved(double[] values) => [.. values.Zip(direction, (value, slope) => value + (slope * step))];
        }

        static double Dot(double[] a, double[] b) => a.Zip(b, static (x, y) => x * y).Sum();
    }

    private static void Check(AttentionCase attention)
    {
        AttentionCase wide = attention with { Dtype = ScalarType.Float64 };
        wide.CheckForward(torch.CPU);
        wide.CheckBackward(torch.CPU);
    }
}
