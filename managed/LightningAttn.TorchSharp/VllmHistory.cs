using LightningAttn.Interop;
using TorchSharp;
using static TorchSharp.torch;

namespace LightningAttn;

/// <summary>
/// <see cref="HistoryDecay.VllmCompatible"/>: the exact operator and its states, corrected by torch operators, whose
/// own gradients make up the backward pass.
/// </summary>
internal static class VllmHistory
{
    /// <summary>Tokens per block of the deviation.</summary>
    private const long Block = 256;

    /// <summary>Output and states of exact shape. To be called inside a dispose scope.</summary>
    internal static (Tensor Output, Tensor States) Attend(
        Tensor q, Tensor k, Tensor v, Tensor rates, Tensor? history, AttentionOptions options)
    {
        // States at a granularity that holds both the ends of the correction's blocks and those of the caller's.
        long granularity = GreatestCommonDivisor(Block, options.BlockSize);
        (Tensor exact, Tensor states) = Functional.Attend(
            q, k, v, rates, history, options with { BlockSize = granularity, BlockStates = true });
        if (q.size(2) == 0)
        {
            return (exact, states);
        }

        long tokens = q.size(2);
        Tensor output = exact.to(rates.dtype).add(
            Correction(
                q, v.size(1), rates, Every(states, Block / granularity, Integer.CeilDiv(tokens, Block)), options.Scale));
        Tensor final = states.narrow(2, states.size(2) - 1, 1);
        return (output.to(v.dtype), options.BlockStates
            ? torch.cat(
                [Every(states, options.BlockSize / granularity, Integer.CeilDiv(tokens, options.BlockSize)), final], 2)
            : final.clone());
    }

    /// <summary>scale * exp(-s i) (1 - exp(-s)) S_b^T q_i as [B, Hv, N, E]; entering [B, Hv, blocks, D, E].</summary>
    private static Tensor Correction(Tensor q, long heads, Tensor rates, Tensor entering, double scale)
    {
        long batch = q.size(0);
        long tokens = q.size(2);
        long headDimQk = q.size(3);
        long blocks = entering.size(2);
        Tensor queries = q.to(rates.dtype);
        if (q.size(1) != heads)
        {
            queries = queries.repeat_interleave(heads / q.size(1), 1);
        }

        queries = torch.nn.functional.pad(queries, [0, 0, 0, (blocks * Block) - tokens])
            .reshape(batch, heads, blocks, Block, headDimQk);
        Tensor position = torch.arange(Block, dtype: rates.dtype, device: rates.device);
        Tensor rate = rates.reshape(heads, 1, 1, 1);
        Tensor decay = rate.neg().mul(position.reshape(Block, 1)).exp();
        Tensor weight = decay.mul(rate.neg().expm1().neg());
        using Scalar factor = scale.ToScalar();
        return torch.matmul(queries, entering)
            .mul(weight)
            .mul(factor)
            .reshape(batch, heads, blocks * Block, entering.size(4))
            .narrow(2, 0, tokens);
    }

    /// <summary>Entries 0, step, 2 step, ... of the states, count of them.</summary>
    private static Tensor Every(Tensor states, long step, long count) =>
        states.slice(2, 0, ((count - 1) * step) + 1, step);

    private static long GreatestCommonDivisor(long a, long b) => b == 0 ? a : GreatestCommonDivisor(b, a % b);
}
