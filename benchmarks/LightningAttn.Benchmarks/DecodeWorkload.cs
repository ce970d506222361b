using TorchSharp;
using static TorchSharp.torch;

namespace LightningAttn.Benchmarks;

/// <summary><see cref="Functional.linear_decode_forward"/>: one token for every sequence of a batch.</summary>
internal sealed class DecodeWorkload(Shape shape, ScalarType type, Device device, bool compare)
    : Workload("decode", shape, type, device, compare)
{
    private double _error;
    private double? _torchError;

    // The states read and written, and q, k, v, o.
    protected override long Bytes => (2 * BytesPerState) + (4 * BytesPerTensor);

    public override void Check()
    {
        using var scope = NewDisposeScope();
        using var inputs = new DecodeInputs(Shape, Type, Device);
        using var before = inputs.Cache.clone();
        _error = CorrectnessGate.Require(
            $"{this}", CorrectnessGate.ErrorOfDecode(inputs, before, Decode(inputs)), Type);
        if (Compare)
        {
            inputs.Cache.copy_(before);
            using var decay = DecayOf(inputs);
            _torchError = CorrectnessGate.Require(
                $"{this} in TorchSharp",
                CorrectnessGate.ErrorOfDecode(inputs, before, DecodeInTorch(inputs, decay)),
                Type);
        }
    }

    public override Row Measure(Timer timer, double copyBytesPerSecond)
    {
        var sets = Enumerable.Range(0, InputSets(BytesPerState))
            .Select(_ => new DecodeInputs(Shape, Type, Device))
            .ToArray();
        try
        {
            var row = RowOf(Time(timer, Decode, sets), copyBytesPerSecond, LightningAttn.Operation.Decode, _error);
            if (!Compare)
            {
                return row;
            }

            using var decay = DecayOf(sets[0]);
            return row with { Torch = Time(timer, x => DecodeInTorch(x, decay), sets), TorchError = _torchError };
        }
        finally
        {
            foreach (var set in sets)
            {
                set.Dispose();
            }
        }
    }

    private static Tensor Decode(DecodeInputs inputs) =>
        Functional.linear_decode_forward(
            inputs.Q, inputs.K, inputs.V, inputs.Cache, inputs.DecayRates, inputs.Slots);

    // S <- g S + k (x) v in two passes over the state, o = S^T q in a third.
    private static Tensor DecodeInTorch(DecodeInputs inputs, Tensor decay)
    {
        var (q, k, v) = (inputs.Q.to(float32), inputs.K.to(float32), inputs.V.to(float32));
        inputs.Cache.mul_(decay).addcmul_(k.transpose(-1, -2), v, 1);
        return q.matmul(inputs.Cache).to(inputs.V.dtype).flatten(1);
    }

    private static Tensor DecayOf(DecodeInputs inputs)
    {
        using var scope = NewDisposeScope();
        return inputs.DecayRates.neg().exp().view(-1, 1, 1).MoveToOuterDisposeScope();
    }

    private static Timing Time(Timer timer, Func<DecodeInputs, Tensor> decode, DecodeInputs[] sets) =>
        timer.Measure(call =>
        {
            using var scope = NewDisposeScope();
            decode(sets[call % sets.Length]);
        });
}
