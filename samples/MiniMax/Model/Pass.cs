using TorchSharp;
using static TorchSharp.torch;

namespace MiniMax.Model;

/// <summary>What the layers of one pass share. Its tensors belong to the dispose scope of the pass.</summary>
internal sealed class Pass
{
    private readonly Action<int, Tensor>? _onAttention;

    /// <param name="config">The model's sizes.</param>
    /// <param name="tokens">[B, N].</param>
    /// <param name="real">[B, N], true where a token is no padding; null: all are.</param>
    /// <param name="state">What came before; null: nothing.</param>
    /// <param name="onAttention">Is shown the output of each attention layer.</param>
    public Pass(
        MiniMaxConfig config, Tensor tokens, Tensor? real, DecoderState? state, Action<int, Tensor>? onAttention)
    {
        _onAttention = onAttention;
        State = state;
        Real = real;
        var (past, count) = (state?.Tokens ?? 0, tokens.size(1));
        AllReal = RealSoFar(tokens, real, state);
        Rotary = Rotary.Of(Positions(past, count, tokens.device), config.HeadDim, config.RopeTheta);
        IsCausal = past == 0 && count > 1 && AllReal is null;
        Visible = count > 1 || AllReal is not null ? VisibleKeys(past, count, tokens.device) : null;
    }

    public DecoderState? State { get; }

    /// <summary>[B, N], true where a token of this pass is no padding; null: all are.</summary>
    public Tensor? Real { get; }

    /// <summary>[B, T] of these tokens and all before them; null: none is padding.</summary>
    public Tensor? AllReal { get; }

    public Rotary Rotary { get; }

    /// <summary>The tokens are all there are and see each other up to themselves; there is no mask.</summary>
    public bool IsCausal { get; }

    /// <summary>[B or 1, 1, N, T], true where a token attends to a key; null: everywhere, or see IsCausal.</summary>
    public Tensor? Visible { get; }

    public void ShowAttention(int layer, Tensor output) => _onAttention?.Invoke(layer, output);

    private static Tensor? RealSoFar(Tensor tokens, Tensor? real, DecoderState? state)
    {
        if (real is null && state?.Real is null)
        {
            return null;
        }

        var now = real ?? ones_like(tokens, ScalarType.Bool);
        if (state is null or { Tokens: 0 })
        {
            return now;
        }

        var before = state.Real ?? ones(tokens.size(0), state.Tokens, ScalarType.Bool, tokens.device);
        return cat([before, now], 1);
    }

    /// <summary>[B or 1, N]: counted from the first token that is no padding.</summary>
    private Tensor Positions(long past, long count, Device device) =>
        AllReal is null
            ? arange(past, past + count, ScalarType.Int64, device).unsqueeze(0)
            : (AllReal.to(ScalarType.Int64).cumsum(1) - 1).clamp_min(0).narrow(1, past, count);

    /// <summary>
    /// Keys up to the token itself that are no padding. Padding sees itself, because the softmax of nothing is NaN.
    /// </summary>
    private Tensor? VisibleKeys(long past, long count, Device device)
    {
        if (IsCausal)
        {
            return null;
        }

        var earlier = ones(count, past + count, ScalarType.Bool, device).tril(past);
        if (AllReal is null)
        {
            return earlier.unsqueeze(0).unsqueeze(0);
        }

        var self = earlier.logical_and(earlier.tril(past - 1).logical_not());
        return earlier.logical_and(AllReal.unsqueeze(1)).logical_or(self).unsqueeze(1);
    }
}
