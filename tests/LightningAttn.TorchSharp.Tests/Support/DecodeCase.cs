using LightningAttn.Tests.Reference;

namespace LightningAttn.Tests.Support;

/// <summary>Random inputs of one decode call and its truth, the token recurrence with one token.</summary>
internal sealed record DecodeCase
{
    public int B { get; init; } = 4;

    public int Hk { get; init; } = 2;

    public int Hv { get; init; } = 2;

    public int D { get; init; } = 32;

    public int E { get; init; } = 32;

    public ScalarType Dtype { get; init; } = ScalarType.Float32;

    public ScalarType CacheDtype { get; init; } = ScalarType.Float32;

    public double? Rate { get; init; }

    public Layout Layout { get; init; } = Layout.Contiguous;

    internal sealed record Inputs(Tensor Q, Tensor K, Tensor V, Tensor Rates);

    internal Inputs Create(Device device)
    {
        ScalarType rateType = Dtype == ScalarType.Float64 ? ScalarType.Float64 : ScalarType.Float32;
        double[] rates = [.. Enumerable.Range(0, Hv).Select(head => Rate ?? (0.7 * Math.Pow(0.4, head)))];
        return new Inputs(
            Values.Normal(11, Dtype, device, B, Hk, 1, D).In(Layout),
            Values.Normal(12, Dtype, device, B, Hk, 1, D).In(Layout),
            Values.Normal(13, Dtype, device, B, Hv, 1, E).In(Layout),
            torch.tensor(rates, dtype: rateType).to(device));
    }

    internal Tensor States(Device device, long rows, int seed = 14) =>
        Values.Normal(seed, CacheDtype, device, rows, Hv, D, E);

    /// <summary>The truth's problem, with the given state of each row.</summary>
    internal TokenRecurrence.Problem ReferenceProblem(Inputs inputs, double[] states) => new(
        B,
        Hk,
        Hv,
        1,
        D,
        E,
        Values.Of(inputs.Q),
        Values.Of(inputs.K),
        Values.Of(inputs.V),
        Values.Of(inputs.Rates),
        states);

    /// <summary>
    /// Leaves that hold the gradients of the same maths in torch operators and the input's type: what rounding alone
    /// costs. Gradients of the output [B, Hv * E] and of the new states may be absent.
    /// </summary>
    internal (Inputs Inputs, Tensor State) EagerGradients(
        Inputs inputs, Tensor state, Tensor? gradOutput, Tensor? gradState)
    {
        Inputs leaves = new(Leaf(inputs.Q), Leaf(inputs.K), Leaf(inputs.V), Leaf(inputs.Rates));
        Tensor stateLeaf = Leaf(state.to(ScalarType.Float32));
        (Tensor output, Tensor states) =
            EagerAttention.Attend(leaves.Q, leaves.K, leaves.V, leaves.Rates, stateLeaf, blockSize: 64, scale: 1);
        AttentionCase.Backward(
            output,
            states.select(2, -1),
            gradOutput?.reshape(B, Hv, 1, E)!,
            gradState?.to(states.dtype)!,
            gradOutput is not null,
            gradState is not null);
        return (leaves, stateLeaf);

        static Tensor Leaf(Tensor tensor) => tensor.detach().clone().requires_grad_(true);
    }

    /// <summary>The states after the token, out of those before and after it.</summary>
    internal double[] NewStates(TokenRecurrence.Result result)
    {
        int size = D * E;
        return [.. Enumerable.Range(0, B * Hv).SelectMany(
            head => result.States.Skip(((head * 2) + 1) * size).Take(size))];
    }
}
