using LightningAttn.Tests.Reference;
using LightningAttn.Tests.Support;

namespace LightningAttn.Tests.LightningAttention;

/// <summary>Output, states and gradients against the token recurrence, over the whole range of arguments.</summary>
internal sealed class ForwardBackwardTests(DeviceType deviceType) : OperatorFixture(deviceType)
{
    /// <summary>The segment of the kernels that a length can fall beside.</summary>
    private const int Chunk = 64;

    private static readonly ScalarType[] s_dtypes = [ScalarType.Float32, ScalarType.BFloat16, ScalarType.Float16];

    private static readonly int[] s_headDims = [.. Enumerable.Range(2, 31).Select(static eighth => 8 * eighth)];

    [Test]
    public void Lengths(
        [Values(0, 1, Chunk - 1, Chunk, Chunk + 1, (3 * Chunk) + 17)] int tokens,
        [ValueSource(nameof(s_dtypes))] ScalarType dtype,
        [Values] bool history)
    {
        Check(new AttentionCase { N = tokens, Dtype = dtype, History = history });
    }

    [Test]
    public void Rates(
        [Values(0, 1e-4, 1, 100)] double rate,
        [ValueSource(nameof(s_dtypes))] ScalarType dtype)
    {
        Check(new AttentionCase { N = 150, Rate = rate, Dtype = dtype });
    }

    [Test]
    public void LongSequences(
        [Values(0, 1e-4, 0.1)] double rate,
        [ValueSource(nameof(s_dtypes))] ScalarType dtype)
    {
        var oneSequence = new AttentionCase { B = 1, N = 2049, D = 16, E = 16, BlockSize = 256, Dtype = dtype };
        Check(oneSequence with { Rate = rate });
    }

    [Test]
    public void ScoresMayExceedTheRangeOfFloat16()
    {
        var large = new AttentionCase { B = 1, N = 150, D = 128, Rate = 1, Dtype = ScalarType.Float16, History = false };
        AttentionCase.Inputs inputs = large.Create(Device);
        inputs.Q.fill_(30);
        inputs.K.fill_(30);
        inputs.V.mul_(0.01);
        CheckRange(large, inputs);
    }

    [Test]
    public void StatesMayExceedTheRangeOfFloat16()
    {
        var large = new AttentionCase { B = 1, N = 150, D = 128, Rate = 1e-3, Dtype = ScalarType.Float16 };
        AttentionCase.Inputs inputs = large.Create(Device);
        inputs.History!.mul_(1e6);
        inputs.Q.mul_(1e-3);
        CheckRange(large, inputs);
    }

    [Test]
    public void EqualHeadDims([ValueSource(nameof(s_headDims))] int headDim)
    {
        var oneHead = new AttentionCase { B = 1, Hk = 1, Hv = 1, N = 70, Dtype = ScalarType.BFloat16 };
        Check(oneHead with { D = headDim, E = headDim });
    }

    [Test]
    public void UnequalHeadDims(
        [Values(16, 24, 72, 128, 256)] int headDimQk,
        [Values(16, 40, 96, 256)] int headDimV,
        [ValueSource(nameof(s_dtypes))] ScalarType dtype)
    {
        Check(new AttentionCase { B = 1, N = 70, D = headDimQk, E = headDimV, Dtype = dtype });
    }

    [Test]
    public void GroupedHeads([Values(1, 2, 4)] int heads, [ValueSource(nameof(s_dtypes))] ScalarType dtype)
    {
        Check(new AttentionCase { Hk = heads, Hv = 4, N = 130, Dtype = dtype });
    }

    [Test]
    public void Layouts([Values] Layout layout, [ValueSource(nameof(s_dtypes))] ScalarType dtype)
    {
        Check(new AttentionCase { Layout = layout, N = 100, D = 24, E = 40, Dtype = dtype });
    }

    [Test]
    public void BlockSizes([Values(64, 128, 192, 256)] int blockSize, [Values] bool blockStates)
    {
        Check(new AttentionCase { N = 300, BlockSize = blockSize, BlockStates = blockStates });
    }

    [Test]
    public void Scale([Values(-2.0, 0.125)] double scale) => Check(new AttentionCase { Scale = scale });

    [Test]
    public void GradientsFromOutputAlone([ValueSource(nameof(s_dtypes))] ScalarType dtype) =>
        new AttentionCase { N = 150, Dtype = dtype }.CheckBackward(Device, fromStates: false);

    [Test]
    public void GradientsFromStatesAlone([ValueSource(nameof(s_dtypes))] ScalarType dtype, [Values] bool blockStates) =>
        new AttentionCase { N = 150, Dtype = dtype, BlockStates = blockStates }
            .CheckBackward(Device, fromOutput: false);

    [Test]
    public void EmptyBatch() => Check(new AttentionCase { B = 0 });

    [Test]
    public void EachGradientAloneIsTheSame([Range(0, 4)] int input)
    {
        var attention = new AttentionCase { Hk = 1, Hv = 2, N = 130 };
        AttentionCase.Inputs all = attention.Create(Device).Leaves();
        AttentionCase.Inputs one = attention.Create(Device);
        Run(all);
        Tensor leaf = one.All.ElementAt(input).requires_grad_(true);
        Run(one);

        Assert.That(Values.Bits(leaf.grad!), Is.EqualTo(Values.Bits(all.All.ElementAt(input).grad!)));
        Assert.That(one.All.Count(static tensor => tensor.grad is not null), Is.EqualTo(1));

        void Run(AttentionCase.Inputs inputs)
        {
            (Tensor output, Tensor states) = attention.Call(inputs);
            torch.autograd.backward(
                [output, states], [torch.ones_like(output), torch.ones_like(states)]);
        }
    }

    [Test]
    public void RateShapes([Values(1, 3, 4)] int rank)
    {
        var attention = new AttentionCase { Hv = 2 };
        AttentionCase.Inputs flat = attention.Create(Device).Leaves();
        AttentionCase.Inputs shaped = flat with
        {
            Rates = flat.Rates.detach().reshape(rank switch
            {
                1 => [2],
                3 => [2, 1, 1],
                _ => [1, 2, 1, 1],
            }).requires_grad_(true),
        };
        attention.Call(flat).Output.sum().backward();
        attention.Call(shaped).Output.sum().backward();

        Assert.That(shaped.Rates.grad!.shape, Is.EqualTo(shaped.Rates.shape));
        Assert.That(Values.Bits(shaped.Rates.grad!), Is.EqualTo(Values.Bits(flat.Rates.grad!)));
    }

    [Test]
    public void HistoryOfAnyStrides()
    {
        var attention = new AttentionCase { N = 70, D = 24, E = 40 };
        AttentionCase.Inputs inputs = attention.Create(Device);
        Tensor transposed = inputs.History!.transpose(2, 3).contiguous().transpose(2, 3);
        (Tensor output, Tensor states) = attention.Call(inputs);
        (Tensor strided, Tensor stridedStates) = attention.Call(inputs with { History = transposed });

        Assert.That(Values.Bits(strided), Is.EqualTo(Values.Bits(output)));
        Assert.That(Values.Bits(stridedStates), Is.EqualTo(Values.Bits(states)));
    }

    [Test]
    public void ExpandedGradients()
    {
        // sum() hands back a gradient with stride 0 on every axis.
        var attention = new AttentionCase { N = 70 };
        AttentionCase.Inputs expanded = attention.Create(Device).Leaves();
        AttentionCase.Inputs dense = attention.Create(Device).Leaves();
        (Tensor output, Tensor states) = attention.Call(expanded);
        (output.sum() + states.sum()).backward();
        (output, states) = attention.Call(dense);
        torch.autograd.backward([output, states], [torch.ones_like(output), torch.ones_like(states)]);

        foreach ((Tensor actual, Tensor expected) in expanded.All.Zip(dense.All))
        {
            Assert.That(Values.Bits(actual.grad!), Is.EqualTo(Values.Bits(expected.grad!)));
        }
    }

    [Test]
    public void InputsAreNotWritten()
    {
        var attention = new AttentionCase { N = 100 };
        AttentionCase.Inputs inputs = attention.Create(Device).Leaves();
        byte[][] before = [.. inputs.All.Select(Values.Bits)];
        (Tensor output, Tensor states) = attention.Call(inputs);
        (output.sum() + states.sum()).backward();

        Assert.That(inputs.All.Select(Values.Bits), Is.EqualTo(before));
    }

    private void Check(AttentionCase attention)
    {
        attention.CheckForward(Device);
        attention.CheckBackward(Device);
    }

    /// <summary>The outputs are finite; eagerly, in fp16, they would not be.</summary>
    private static void CheckRange(AttentionCase attention, AttentionCase.Inputs inputs)
    {
        double[] expected = TokenRecurrence.Forward(attention.ReferenceProblem(inputs)).Output;
        Assert.That(expected.Max(Math.Abs), Is.LessThan((double)Half.MaxValue));
        Assert.That(Values.Of(attention.Eager(inputs).Output), Has.Some.Matches<double>(value => !double.IsFinite(value)));
        // Two roundings to 11 bits, of a score or state and of the output; the eager form has no error to compare with.
        Assert.That(
            Accuracy.RelativeError(Values.Of(attention.Call(inputs).Output), expected), Is.LessThanOrEqualTo(5e-4));
    }
}
