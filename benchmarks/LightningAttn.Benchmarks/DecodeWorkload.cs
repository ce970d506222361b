using TorchSharp;
using static TorchSharp.torch;

namespace LightningAttn.Benchmarks;

/// <summary><see cref="Functional.linear_decode_forward"/>: one token for every sequence of a batch.</summary>
internal sealed class DecodeWorkload(Shape shape, ScalarType type, Device device, bool compare)
    : Workload<DecodeInputs>("decode", shape, type, device)
{
    private const int MinBatchOfLimits = 16;

    protected override IReadOnlyList<Variant<DecodeInputs>> Variants { get; } =
    [
        new("ours", Decode)
        {
            Kernel = Native.Describe(Operation.Decode, type, device, shape.HeadDim, shape.HeadDim),
            IsJudged = true,
        },
        .. compare ? new Variant<DecodeInputs>[] { new("torch ops", DecodeInTorch) } : [],
    ];

    protected override long BytesPerSet => Shape.StateBytes;

    protected override DecodeInputs CreateInputs() => new(Shape, Type, Device);

    protected override IEnumerable<(Variant<DecodeInputs> Variant, Errors Errors)> CheckedErrors()
    {
        using var inputs = CreateInputs();
        using var before = inputs.Cache.clone();
        foreach (var variant in Variants)
        {
            using var scope = NewDisposeScope();
            inputs.Cache.copy_(before);
            var (output, _) = variant.Forward(inputs);
            yield return (variant, CorrectnessGate.ErrorsOfDecode(inputs, before, output));
        }
    }

    protected override Tensor[] Run(Variant<DecodeInputs> variant, DecodeInputs inputs) =>
        [variant.Forward(inputs).Output];

    protected override Work WorkOf(Variant<DecodeInputs> variant) => Work.Decode(Shape, (int)Type.ElementSize());

    protected override Limits? LimitsOf(double floorMicroseconds) =>
        Shape.Batch >= MinBatchOfLimits ? Limits.Decode(floorMicroseconds) : null;

    // Decoding takes no workspace.
    protected override long? ExtraBytesOf(Variant<DecodeInputs> variant, DecodeInputs inputs, Tensor[] results) => 0;

    private static (Tensor Output, Tensor? State) Decode(DecodeInputs inputs) =>
        (Functional.linear_decode_forward(
            inputs.Q, inputs.K, inputs.V, inputs.Cache, inputs.DecayRates, inputs.Slots), inputs.Cache);

    // S <- g S + k (x) v in two passes over the state, o = S^T q in a third.
    private static (Tensor Output, Tensor? State) DecodeInTorch(DecodeInputs inputs)
    {
        var (q, k, v) = (inputs.Q.to(float32), inputs.K.to(float32), inputs.V.to(float32));
        inputs.Cache.mul_(inputs.Decay).addcmul_(k.transpose(-1, -2), v, 1);
        return (q.matmul(inputs.Cache).to(inputs.V.dtype).flatten(1), inputs.Cache);
    }
}
