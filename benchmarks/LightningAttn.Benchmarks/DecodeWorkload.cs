using TorchSharp;
using static TorchSharp.torch;

namespace LightningAttn.Benchmarks;

/// <summary>What is done with the tokens of a row.</summary>
internal enum DecodeStep
{
    /// <summary><see cref="Functional.linear_decode_forward"/>: one token.</summary>
    Decode,

    /// <summary><see cref="Functional.linear_decode_verify"/>: draft tokens, of which the outputs are wanted.</summary>
    Verify,

    /// <summary><see cref="Functional.linear_decode_commit"/>: draft tokens, all of them accepted.</summary>
    Commit,
}

/// <summary>The next tokens of every sequence of a batch, from states in a pool.</summary>
internal sealed class DecodeWorkload : Workload<DecodeInputs>
{
    private const int DraftTokens = 4;

    /// <summary>From here on the memory's time outweighs launches.</summary>
    private const int MinBatchOfLimits = 16;

    /// <summary>From here on there are rows beside the decode step with fp32 states.</summary>
    private const int MinBatchOfAllRows = 64;

    private readonly DecodeStep _step;
    private readonly ScalarType _stateType;

    private DecodeWorkload(
        string operation,
        DecodeStep step,
        Shape shape,
        ScalarType type,
        ScalarType stateType,
        Device device,
        bool compare)
        : base(operation, shape, type, device)
    {
        _step = step;
        _stateType = stateType;
        Variants =
        [
            step switch
            {
                DecodeStep.Verify => new("ours", Verify) { IsJudged = true },
                DecodeStep.Commit => new("ours", Commit) { IsJudged = true },
                _ => new("ours", Decode)
                {
                    Kernel = Native.Describe(Operation.Decode, type, device, shape.HeadDim, shape.HeadDim, stateType),
                    IsJudged = true,
                },
            },
            .. compare && step == DecodeStep.Decode && stateType == ScalarType.Float32
                ? new Variant<DecodeInputs>[] { new("torch ops", DecodeInTorch) }
                : [],
        ];
    }

    protected override IReadOnlyList<Variant<DecodeInputs>> Variants { get; }

    protected override ScalarType GateType => _stateType == ScalarType.Float32 ? Type : _stateType;

    protected override long BytesPerSet => StateBytes;

    private long StateBytes => Shape.States * _stateType.ElementSize();

    /// <summary>The rows of one shape of one token.</summary>
    public static IEnumerable<DecodeWorkload> Of(Shape shape, ScalarType type, Device device, bool compare)
    {
        const ScalarType Wide = ScalarType.Float32;
        yield return new("decode", DecodeStep.Decode, shape, type, Wide, device, compare);
        if (shape.Batch < MinBatchOfAllRows)
        {
            yield break;
        }

        Shape draft = shape with { Tokens = DraftTokens };
        yield return new("decode, bf16 state", DecodeStep.Decode, shape, type, ScalarType.BFloat16, device, compare);
        yield return new("verify", DecodeStep.Verify, draft, type, Wide, device, compare);
        yield return new("commit", DecodeStep.Commit, draft, type, Wide, device, compare);
    }

    protected override DecodeInputs CreateInputs() => new(Shape, Type, _stateType, Device);

    protected override IEnumerable<(Variant<DecodeInputs> Variant, Errors Errors)> CheckedErrors()
    {
        using var inputs = CreateInputs();
        using var before = inputs.Cache.clone();
        foreach (var variant in Variants)
        {
            using var scope = NewDisposeScope();
            inputs.Cache.copy_(before);
            var (output, state) = variant.Forward(inputs);
            yield return (
                variant,
                CorrectnessGate.ErrorsOfDecode(inputs, before, _step == DecodeStep.Commit ? null : output, state));
        }
    }

    protected override Tensor[] Run(Variant<DecodeInputs> variant, DecodeInputs inputs)
    {
        var output = variant.Forward(inputs).Output;
        return ReferenceEquals(output, inputs.Cache) ? [] : [output];
    }

    protected override Work WorkOf(Variant<DecodeInputs> variant)
    {
        var tensorBytes = Shape.Elements * Type.ElementSize();
        return _step switch
        {
            DecodeStep.Verify => Work.Decode(Shape, StateBytes + (4 * tensorBytes)),
            DecodeStep.Commit => Work.Decode(Shape, (2 * StateBytes) + (2 * tensorBytes)),
            _ => Work.Decode(Shape, (2 * StateBytes) + (4 * tensorBytes)),
        };
    }

    protected override Limits? LimitsOf(double floorMicroseconds) => (_step, Shape) switch
    {
        (DecodeStep.Decode, { Batch: 1, Heads: 64, HeadDim: 128 }) => Limits.DecodeOfOneRow,
        (DecodeStep.Decode, { Batch: >= MinBatchOfLimits }) => _stateType == ScalarType.Float32
            ? Limits.Decode(floorMicroseconds)
            : Limits.DecodeOfNarrowStates(floorMicroseconds),
        (DecodeStep.Verify, { Batch: >= MinBatchOfLimits }) => Limits.Verify(floorMicroseconds),
        _ => null,
    };

    // Decoding takes no workspace.
    protected override long? ExtraBytesOf(Variant<DecodeInputs> variant, DecodeInputs inputs, Tensor[] results) => 0;

    private static (Tensor Output, Tensor? State) Decode(DecodeInputs inputs) =>
        (Functional.linear_decode_forward(
            inputs.Q, inputs.K, inputs.V, inputs.Cache, inputs.DecayRates, inputs.Slots), inputs.Cache);

    private static (Tensor Output, Tensor? State) Verify(DecodeInputs inputs)
    {
        using var q = inputs.Q.transpose(1, 2);
        using var k = inputs.K.transpose(1, 2);
        using var v = inputs.V.transpose(1, 2);
        return (Functional.linear_decode_verify(q, k, v, inputs.Cache, inputs.DecayRates, inputs.Slots), null);
    }

    private static (Tensor Output, Tensor? State) Commit(DecodeInputs inputs)
    {
        using var k = inputs.K.transpose(1, 2);
        using var v = inputs.V.transpose(1, 2);
        Functional.linear_decode_commit(k, v, inputs.Cache, inputs.DecayRates, inputs.Slots, inputs.Accepted);
        return (inputs.Cache, inputs.Cache);
    }

    // S <- g S + k (x) v in two passes over the state, o = S^T q in a third.
    private static (Tensor Output, Tensor? State) DecodeInTorch(DecodeInputs inputs)
    {
        var (q, k, v) = (inputs.Q.to(float32), inputs.K.to(float32), inputs.V.to(float32));
        inputs.Cache.mul_(inputs.Decay).addcmul_(k.transpose(-1, -2), v, 1);
        return (q.matmul(inputs.Cache).to(inputs.V.dtype).flatten(1), inputs.Cache);
    }
}
