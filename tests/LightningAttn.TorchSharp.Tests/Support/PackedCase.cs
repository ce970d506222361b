using LightningAttn.Tests.Reference;

namespace LightningAttn.Tests.Support;

/// <summary>Random inputs of one call of lightning_attention_varlen, and its sequences one by one.</summary>
internal sealed record PackedCase
{
    /// <summary>Lengths of the sequences, with an empty one and lengths around a chunk's.</summary>
    public long[] Lengths { get; init; } = [65, 0, 1, 130, 64];

    /// <summary>Tokens before the first sequence and after the last one.</summary>
    public (long Before, long After) Padding { get; init; } = (0, 0);

    public int Hk { get; init; } = 2;

    public int Hv { get; init; } = 4;

    public int D { get; init; } = 32;

    public int E { get; init; } = 48;

    public ScalarType Dtype { get; init; } = ScalarType.Float32;

    public ScalarType IndexDtype { get; init; } = ScalarType.Int64;

    public double Scale { get; init; } = 0.5;

    internal int Count => Lengths.Length;

    internal long Tokens => Padding.Before + Lengths.Sum() + Padding.After;

    internal ScalarType StateType => Dtype == ScalarType.Float64 ? ScalarType.Float64 : ScalarType.Float32;

    /// <summary>Where sequence <paramref name="index"/> begins, or the last one ends.</summary>
    internal long Offset(int index) => Padding.Before + Lengths.Take(index).Sum();

    /// <summary>q, k [T, Hk, D], v [T, Hv, E], rates [Hv], offsets [n + 1].</summary>
    internal sealed record Inputs(Tensor Q, Tensor K, Tensor V, Tensor Rates, Tensor Offsets)
    {
        internal Tensor[] Differentiable => [Q, K, V, Rates];

        /// <summary>The same values and strides as leaves that require gradients.</summary>
        internal Inputs Leaves() => new(Leaf(Q), Leaf(K), Leaf(V), Leaf(Rates), Offsets);

        private static Tensor Leaf(Tensor tensor) => tensor.detach().requires_grad_(true);
    }

    /// <summary>Parts of a fused projection, [T, 2 Hk D + Hv E], with NaN in the rows of padding.</summary>
    internal Inputs Create(Device device)
    {
        long width = (2L * Hk * D) + ((long)Hv * E);
        Tensor fused = Values.Normal(21, Dtype, device, Tokens, width);
        using Scalar nan = double.NaN.ToScalar();
        fused.narrow(0, 0, Padding.Before).fill_(nan);
        fused.narrow(0, Tokens - Padding.After, Padding.After).fill_(nan);
        double[] rates = [.. Enumerable.Range(0, Hv).Select(static head => 0.7 * Math.Pow(0.4, head))];
        long[] offsets = [.. Enumerable.Range(0, Count + 1).Select(Offset)];
        return new Inputs(
            fused.narrow(1, 0, Hk * D).view(Tokens, Hk, D),
            fused.narrow(1, Hk * D, Hk * D).view(Tokens, Hk, D),
            fused.narrow(1, 2L * Hk * D, Hv * E).view(Tokens, Hv, E),
            torch.tensor(rates, dtype: StateType).to(device),
            torch.tensor(offsets, dtype: IndexDtype).to(device));
    }

    internal Tensor Call(
        Inputs inputs, Tensor? pool = null, Tensor? slots = null, Tensor? hasInitial = null) =>
        Functional.lightning_attention_varlen(
            inputs.Q, inputs.K, inputs.V, inputs.Rates, inputs.Offsets, pool, slots, hasInitial, Scale);

    /// <summary>Output [len, Hv, E] and final state [Hv, D, E] of one sequence by lightning_attention.</summary>
    internal (Tensor Output, Tensor State) Alone(Inputs inputs, int index, Tensor? history = null)
    {
        (Tensor output, Tensor states) = Functional.lightning_attention(
            Batch(inputs.Q, index),
            Batch(inputs.K, index),
            Batch(inputs.V, index),
            inputs.Rates,
            kv_history: history?.unsqueeze(0),
            scale: Scale,
            output_block_states: false);
        return (output.squeeze(0).transpose(0, 1), states.select(2, 0).squeeze(0));
    }

    /// <summary>The rows of one sequence.</summary>
    internal Tensor Rows(Tensor packed, int index) => packed.narrow(0, Offset(index), Lengths[index]);

    /// <summary>The truth's problem of one sequence.</summary>
    internal TokenRecurrence.Problem ReferenceProblem(Inputs inputs, int index) => new(
        1,
        Hk,
        Hv,
        (int)Lengths[index],
        D,
        E,
        Values.Of(Batch(inputs.Q, index)),
        Values.Of(Batch(inputs.K, index)),
        Values.Of(Batch(inputs.V, index)),
        Values.Of(inputs.Rates),
        History: null)
    {
        BlockSize = int.MaxValue / 2,
        Scale = Scale,
    };

    /// <summary>One sequence as [1, H, len, X].</summary>
    internal Tensor Batch(Tensor packed, int index) => Rows(packed, index).transpose(0, 1).unsqueeze(0);
}
