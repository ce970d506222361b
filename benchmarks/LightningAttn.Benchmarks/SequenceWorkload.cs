using TorchSharp;
using static TorchSharp.torch;

namespace LightningAttn.Benchmarks;

/// <summary><see cref="Functional.lightning_attention"/>, forwards or forwards and backwards.</summary>
internal sealed class SequenceWorkload(
    string operation, Shape shape, ScalarType type, Device device, bool compare, bool blockStates, bool backward)
    : Workload(operation, shape, type, device, compare)
{
    private const int BlockSize = 256;
    private static readonly int[] s_torchChunks = [64, 128, 256];

    private double _error;
    private double? _torchError;

    private delegate (Tensor Output, Tensor State) Forward(SequenceInputs inputs);

    // q, k, v read and o written; backwards q, k, v, do read and dq, dk, dv written.
    protected override long Bytes =>
        (BytesPerTensor * (backward ? 11 : 4))
        + (blockStates ? BytesPerState * ((Shape.Tokens + BlockSize - 1) / BlockSize + 1) : 0);

    private IEnumerable<int> TorchChunks =>
        Compare ? s_torchChunks.Where(chunk => ChunkedTorch.Fits(Shape.Tokens, chunk)) : [];

    public override void Check()
    {
        using var inputs = CreateInputs();
        var truth = CorrectnessGate.TruthOf(inputs, backward);
        _error = CorrectnessGate.Require($"{this}", ErrorOf(Attend, inputs, truth), Type);
        foreach (var chunk in TorchChunks)
        {
            using var torch = new ChunkedTorch(inputs.DecayRates, chunk, Type);
            var error = ErrorOf(x => torch.Forward(x.Q, x.K, x.V), inputs, truth);
            _torchError = CorrectnessGate.Require($"{this} in TorchSharp, chunk {chunk}", error, Type);
        }
    }

    public override Row Measure(Timer timer, double copyBytesPerSecond)
    {
        var sets = Enumerable.Range(0, InputSets(4 * BytesPerTensor)).Select(_ => CreateInputs()).ToArray();
        try
        {
            var row = RowOf(
                Time(timer, Attend, sets),
                copyBytesPerSecond,
                backward ? LightningAttn.Operation.Backward : LightningAttn.Operation.Forward,
                _error);
            row = row with { TorchError = _torchError };
            foreach (var chunk in TorchChunks)
            {
                using var torch = new ChunkedTorch(sets[0].DecayRates, chunk, Type);
                var time = Time(timer, x => torch.Forward(x.Q, x.K, x.V), sets);
                if (row.Torch is not { } best || time.Microseconds < best.Microseconds)
                {
                    row = row with { Torch = time, TorchChunk = chunk };
                }
            }

            // In fp32 libtorch has no flash kernel, and the scores of long sequences fill the memory.
            return Compare && Device.type == DeviceType.CUDA && Type != float32
                ? row with { Softmax = Time(timer, Softmax, sets) }
                : row;
        }
        finally
        {
            foreach (var set in sets)
            {
                set.Dispose();
            }
        }
    }

    private static (Tensor Output, Tensor State) Softmax(SequenceInputs inputs) =>
        (nn.functional.scaled_dot_product_attention(inputs.Q, inputs.K, inputs.V, is_casual: true), inputs.Q);

    private SequenceInputs CreateInputs()
    {
        var inputs = new SequenceInputs(Shape, Type, Device);
        inputs.RequireGradients(backward);
        return inputs;
    }

    private (Tensor Output, Tensor State) Attend(SequenceInputs inputs)
    {
        var (output, kv) = Functional.lightning_attention(
            inputs.Q, inputs.K, inputs.V, inputs.DecayRates, BlockSize, output_block_states: blockStates);
        return (output, kv);
    }

    private double ErrorOf(Forward forward, SequenceInputs inputs, CorrectnessGate.Truth truth)
    {
        using var scope = NewDisposeScope();
        var (output, state) = forward(inputs);
        var final = state.dim() == 5 ? state.select(2, -1) : state;
        if (!backward)
        {
            return CorrectnessGate.ErrorOf(new(output, final, null, null, null), truth);
        }

        output.backward([inputs.GradOutput]);
        var error = CorrectnessGate.ErrorOf(
            new(output, final, inputs.Q.grad, inputs.K.grad, inputs.V.grad), truth);
        inputs.Q.grad = inputs.K.grad = inputs.V.grad = null;
        return error;
    }

    private Timing Time(Timer timer, Forward forward, SequenceInputs[] sets) =>
        timer.Measure(call =>
        {
            using var scope = NewDisposeScope();
            var inputs = sets[call % sets.Length];
            var (output, _) = forward(inputs);
            if (backward)
            {
                autograd.grad([output], [inputs.Q, inputs.K, inputs.V], [inputs.GradOutput]);
            }
        });
}
