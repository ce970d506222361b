using TorchSharp;
using static TorchSharp.torch;

namespace CharLm;

/// <summary>Cuts batches of sequences out of a corpus.</summary>
/// <remarks>
/// A training batch is a function of the seed and of its step alone, so the step is all that a checkpoint has to keep
/// to go on with the data where it stopped.
/// </remarks>
internal sealed class BatchSource(Corpus corpus, int batchSize, int sequenceLength, ulong seed, Device device)
{
    public int BytesPerBatch => batchSize * sequenceLength;

    /// <summary>Inputs and targets [B, N], the targets one byte ahead, at random places of the training part.</summary>
    public (Tensor Inputs, Tensor Targets) Training(int step)
    {
        // Hashed twice: generators that start at neighbouring integers would give overlapping sequences.
        var random = new SplitMix64(new SplitMix64(new SplitMix64(seed).Next() + (ulong)step).Next());
        var starts = new int[batchSize];
        foreach (ref var start in starts.AsSpan())
        {
            start = (int)random.NextBelow(corpus.Training.Length - sequenceLength);
        }

        return Cut(corpus.Training, starts, sequenceLength);
    }

    /// <summary>At most <paramref name="maxSequences"/> sequences, spread evenly over the validation part.</summary>
    public IEnumerable<(Tensor Inputs, Tensor Targets)> Validation(int maxSequences)
    {
        var length = Math.Min(sequenceLength, corpus.Validation.Length - 1);
        var available = (corpus.Validation.Length - 1) / length;
        var count = Math.Min(available, maxSequences);
        var starts = Enumerable.Range(0, count).Select(i => (int)((long)i * available / count * length)).ToArray();
        return starts.Chunk(batchSize).Select(chunk => Cut(corpus.Validation, chunk, length));
    }

    private (Tensor Inputs, Tensor Targets) Cut(byte[] text, int[] starts, int length)
    {
        var tokens = new long[starts.Length * (length + 1)];
        for (var row = 0; row < starts.Length; row++)
        {
            for (var i = 0; i <= length; i++)
            {
                tokens[(row * (length + 1)) + i] = text[starts[row] + i];
            }
        }

        var all = tensor(tokens, starts.Length, length + 1, device: device);
        return (all.slice(1, 0, length, 1), all.slice(1, 1, length + 1, 1));
    }
}
