using TorchSharp;
using static TorchSharp.torch;

namespace LightningAttn.Benchmarks;

/// <summary>How the tokens of a packed batch are divided among its sequences.</summary>
internal enum Lengths
{
    Uniform,

    /// <summary>Between random places.</summary>
    Random,

    /// <summary>Each has half of what those before it leave.</summary>
    Skewed,
}

/// <summary>Random q, k and v of a packed batch [T, H, D], and the same tokens as one sequence.</summary>
internal sealed class VarlenInputs : IDisposable
{
    private readonly Dictionary<Lengths, Tensor> _offsets;

    /// <param name="shape">B = 1, N: tokens of all sequences.</param>
    /// <param name="sequences">Their number.</param>
    /// <param name="type">Of q, k and v.</param>
    /// <param name="device">Of all tensors.</param>
    public VarlenInputs(Shape shape, int sequences, ScalarType type, Device device)
    {
        Whole = new SequenceInputs(shape, type, device);
        Q = TokensFirst(Whole.Q);
        K = TokensFirst(Whole.K);
        V = TokensFirst(Whole.V);
        Pool = randn([sequences, shape.Heads, shape.HeadDim, shape.HeadDim], float32, device);
        Slots = arange(sequences, int64, device);
        Fresh = zeros([sequences], @bool, device);
        _offsets = Enum.GetValues<Lengths>().ToDictionary(
            lengths => lengths, lengths => tensor(OffsetsOf(lengths, shape.Tokens, sequences), device: device));
    }

    /// <summary>The tokens as one sequence, [1, H, T, D].</summary>
    public SequenceInputs Whole { get; }

    public Tensor Q { get; }

    public Tensor K { get; }

    public Tensor V { get; }

    /// <summary>[n, H, D, D].</summary>
    public Tensor Pool { get; }

    public Tensor Slots { get; }

    /// <summary>[n]: no sequence has an initial state.</summary>
    public Tensor Fresh { get; }

    /// <summary>cu_seqlens.</summary>
    public static long[] OffsetsOf(Lengths lengths, int tokens, int sequences)
    {
        var offsets = new long[sequences + 1];
        switch (lengths)
        {
            case Lengths.Random:
                var random = new Random(sequences);
                var places = Enumerable.Range(0, sequences - 1).Select(_ => random.NextInt64(tokens + 1)).Order();
                places.ToArray().CopyTo(offsets, 1);
                break;
            case Lengths.Skewed:
                for (var i = 1; i < sequences; i++)
                {
                    offsets[i] = offsets[i - 1] + ((tokens - offsets[i - 1]) / 2);
                }

                break;
            default:
                for (var i = 1; i < sequences; i++)
                {
                    offsets[i] = (long)tokens * i / sequences;
                }

                break;
        }

        offsets[^1] = tokens;
        return offsets;
    }

    public Tensor Offsets(Lengths lengths) => _offsets[lengths];

    public void Dispose()
    {
        Whole.Dispose();
        Q.Dispose();
        K.Dispose();
        V.Dispose();
        Pool.Dispose();
        Slots.Dispose();
        Fresh.Dispose();
        foreach (var offsets in _offsets.Values)
        {
            offsets.Dispose();
        }
    }

    private static Tensor TokensFirst(Tensor whole)
    {
        using var scope = NewDisposeScope();
        return whole[0].transpose(0, 1).contiguous().DetachFromDisposeScope();
    }
}
