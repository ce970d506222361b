using LightningAttn.Tests.Reference;
using LightningAttn.Tests.Support;

namespace LightningAttn.Tests.LightningAttention;

/// <summary>HistoryDecay.VllmCompatible against a loop that weighs the history as those kernels do.</summary>
internal sealed class VllmCompatibleTests(DeviceType deviceType) : OperatorFixture(deviceType)
{
    private const int Block = 256;

    [Test]
    public void OutputIsThatOfTheDirectLoop(
        [Values(1, 255, 256, 257, 600)] int tokens,
        [Values] bool history,
        [Values(ScalarType.Float32, ScalarType.BFloat16)] ScalarType dtype)
    {
        Check(new AttentionCase { N = tokens, History = history, Dtype = dtype });
    }

    [Test]
    public void GroupedHeadsAndScale() => Check(new AttentionCase { Hk = 1, Hv = 3, N = 300, Scale = 0.3 });

    [Test]
    public void Rates([Values(0, 1e-4, 0.9, 100)] double rate) => Check(new AttentionCase { N = 300, Rate = rate });

    [Test]
    public void StatesAreTheExactOnes([Values(64, 192, 256, 384)] int blockSize, [Values] bool blockStates)
    {
        var attention = new AttentionCase { N = 700, BlockSize = blockSize, BlockStates = blockStates };
        AttentionCase.Inputs inputs = attention.Create(Device);
        Tensor exact = attention.Call(inputs).States;
        Tensor states = (attention with { HistoryDecay = HistoryDecay.VllmCompatible }).Call(inputs).States;

        Assert.That(states.shape, Is.EqualTo(exact.shape));
        Accuracy.AssertClose("kv", states, Values.Of(exact), null, ScalarType.Float32);
    }

    [Test]
    public void EmptySequence()
    {
        var attention = new AttentionCase { N = 0, HistoryDecay = HistoryDecay.VllmCompatible };
        AttentionCase.Inputs inputs = attention.Create(Device);
        (Tensor output, Tensor states) = attention.Call(inputs);

        Assert.That(output.shape, Is.EqualTo(new long[] { 2, 2, 0, 32 }));
        Assert.That(Values.Of(states), Is.EqualTo(Values.Of(inputs.History!)));
    }

    [Test]
    public void EmptyBatch([Values(64, 192, 256, 384)] int blockSize, [Values] bool blockStates)
    {
        var attention = new AttentionCase { B = 0, N = 300, Hk = 1, BlockSize = blockSize, BlockStates = blockStates };
        AttentionCase.Inputs inputs = attention.Create(Device);
        (Tensor exactOutput, Tensor exactStates) = attention.Call(inputs);
        (Tensor output, Tensor states) =
            (attention with { HistoryDecay = HistoryDecay.VllmCompatible }).Call(inputs);

        Assert.That(output.shape, Is.EqualTo(exactOutput.shape));
        Assert.That(states.shape, Is.EqualTo(exactStates.shape));
    }

    [Test]
    public void TheFirstTokenAfterABoundaryIsSixtyPercentOff()
    {
        // exp(0.9) - 1 = 1.46 of the exact history term, 59 % of the deviating one.
        var attention = new AttentionCase { N = 1, Rate = 0.9 };
        AttentionCase.Inputs inputs = attention.Create(Device);
        inputs = inputs with { V = torch.zeros_like(inputs.V) };
        double[] exact = Values.Of(attention.Call(inputs).Output);
        attention = attention with { HistoryDecay = HistoryDecay.VllmCompatible };
        double[] deviating = Values.Of(attention.Call(inputs).Output);

        Assert.That(
            exact.Zip(deviating, static (x, y) => (y - x) / y),
            Is.All.EqualTo(1 - Math.Exp(-0.9)).Within(1e-4));
    }

    private void Check(AttentionCase attention)
    {
        attention = attention with { HistoryDecay = HistoryDecay.VllmCompatible };
        AttentionCase.Inputs inputs = attention.Create(Device);
        double[] expected = DirectLoop(attention.ReferenceProblem(inputs));
        Tensor output = attention.Call(inputs).Output;
        Tensor exactEager = EagerAttention.Attend(
            inputs.Q, inputs.K, inputs.V, inputs.Rates, inputs.History, Block, attention.Scale).Output;
        double eagerError = Accuracy.RelativeError(
            Values.Of(exactEager), TokenRecurrence.Forward(attention.ReferenceProblem(inputs)).Output);
        string? fault = Accuracy.Fault(
            Values.Of(output), expected, eagerError, Accuracy.Limits.Of(attention.Dtype), attention.N, attention.E);

        Assert.That(fault, Is.Null, attention.ToString());
    }

    /// <summary>
    /// o_i = scale (sum_(j &lt;= i) exp(-s (i - j)) (q_i . k_j) v_j + exp(-s i) S^T q_i) in blocks of 256.
    /// </summary>
    private static double[] DirectLoop(TokenRecurrence.Problem p)
    {
        double[] states = TokenRecurrence.Forward(p with { BlockSize = Block }).States;
        int entries = ((p.N + Block - 1) / Block) + 1;
        var output = new double[p.B * p.Hv * p.N * p.E];
        for (int b = 0; b < p.B; b++)
        {
            for (int h = 0; h < p.Hv; h++)
            {
                (int qk, int v) = p.Tokens(b, h);
                for (int t = 0; t < p.N; t++)
                {
                    int start = t / Block * Block;
                    int state = ((((b * p.Hv) + h) * entries) + (t / Block)) * p.D * p.E;
                    double entering = Math.Exp(-p.Rates[h] * (t - start));
                    for (int e = 0; e < p.E; e++)
                    {
                        double sum = 0;
                        for (int d = 0; d < p.D; d++)
                        {
                            sum += p.Q[((qk + t) * p.D) + d] * entering * states[state + (d * p.E) + e];
                        }

                        output[((v + t) * p.E) + e] = p.Scale * sum;
                    }

                    for (int j = start; j <= t; j++)
                    {
                        double score = 0;
                        for (int d = 0; d < p.D; d++)
                        {
                            score += p.Q[((qk + t) * p.D) + d] * p.K[((qk + j) * p.D) + d];
                        }

                        score *= p.Scale * Math.Exp(-p.Rates[h] * (t - j));
                        for (int e = 0; e < p.E; e++)
                        {
                            output[((v + t) * p.E) + e] += score * p.V[((v + j) * p.E) + e];
                        }
                    }
                }
            }
        }

        return output;
    }
}
