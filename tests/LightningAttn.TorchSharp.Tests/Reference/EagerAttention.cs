namespace LightningAttn.Tests.Reference;

/// <summary>
/// The same maths as one masked product of all tokens, by torch operators in the input's own type. It is no reference:
/// its error is the measure of what that type allows. Autograd gives its gradients.
/// </summary>
internal static class EagerAttention
{
    /// <summary>Output [B, Hv, N, E] and states [B, Hv, NB + 1, D, E] in q's type. Rates [Hv] in the state
    /// type.</summary>
    internal static (Tensor Output, Tensor States) Attend(
        Tensor q, Tensor k, Tensor v, Tensor rates, Tensor? history, long blockSize, double scale)
    {
        long heads = v.size(1);
        long tokens = v.size(2);
        q = Grouped(q, heads);
        k = Grouped(k, heads);
        Tensor position = torch.arange(tokens, dtype: rates.dtype, device: v.device);
        Tensor rate = rates.reshape(heads, 1, 1);
        Tensor distance = position.reshape(tokens, 1) - position.reshape(1, tokens);
        Tensor mask = torch.exp(-rate * distance.clamp(min: 0.0)) * distance.ge(0).to(rates.dtype);
        Tensor output = torch.matmul(torch.matmul(q, k.transpose(-1, -2)) * mask.to(v.dtype), v);
        Tensor? entering = history?.to(v.dtype);
        if (entering is not null)
        {
            Tensor decay = torch.exp(-rate * (position.reshape(tokens, 1) + 1)).to(v.dtype);
            output += torch.matmul(q, entering) * decay;
        }

        var states = new List<Tensor>();
        for (long end = 0; ; end += blockSize)
        {
            end = Math.Min(end, tokens);
            states.Add(StateAt(k, v, rate, entering, end));
            if (end == tokens)
            {
                break;
            }
        }

        return (output * scale, torch.stack(states, 2));
    }

    private static Tensor Grouped(Tensor tensor, long heads) =>
        tensor.size(1) == heads ? tensor : tensor.repeat_interleave(heads / tensor.size(1), 1);

    private static Tensor StateAt(Tensor k, Tensor v, Tensor rate, Tensor? entering, long tokens)
    {
        Tensor left = torch.arange(tokens - 1, -1, -1, dtype: rate.dtype, device: v.device).reshape(tokens, 1);
        Tensor weighted = k.narrow(2, 0, tokens) * torch.exp(-rate * left).to(v.dtype);
        Tensor state = torch.matmul(weighted.transpose(-1, -2), v.narrow(2, 0, tokens));
        return entering is null ? state : state + (entering * torch.exp(-rate * tokens).to(v.dtype));
    }
}
