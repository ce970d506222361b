using TorchSharp.Modules;
using static TorchSharp.torch;

namespace LightningAttn.Modules;

/// <summary>
/// What the operator leaves of a GPU to a projection beside it. The constants are measurements on an H200
/// (docs/kernels/activation.md); wrong ones cost time and nothing else.
/// </summary>
internal static class IdleMultiprocessors
{
    /// <summary>Whether the operator on q [B, H, N, D] takes long enough for work beside it.</summary>
    internal static bool AreFreeForLong(Tensor q) => q.size(2) >= 512;

    /// <summary>Whether it takes a while, and two of three multiprocessors are idle.</summary>
    internal static bool AreMany(Tensor q, int multiprocessors) =>
        AreFreeForLong(q) && 3 * Occupied(q) <= multiprocessors;

    /// <summary>
    /// How many cuBLAS should take to be there for a projection of q's tokens; 0 where it should do as it always does.
    /// </summary>
    /// <remarks>
    /// Told of all, it makes 128 tiles for 132 multiprocessors, and with 100 idle ones that is two rounds. Told of fewer,
    /// it makes larger ones for a single round. That pays if this round is not longer than the operator.
    /// </remarks>
    internal static int ForProjection(Tensor q, nn.Module<Tensor, Tensor> projection, int multiprocessors)
    {
        const long Tile = 256 * 128;          // outputs of a multiprocessor in a round
        const long WeightsMeanwhile = 46_000; // that one multiplies while the operator is at a token
        const long Apart = 8;                 // CTAs come in clusters of neighbours, which leave gaps
        if (projection is not Linear { weight: { } weight } || q.element_size() != 2)
        {
            return 0;
        }

        long idle = multiprocessors - Occupied(q) - Apart;
        bool oneRoundAnyhow = q.size(0) * q.size(2) * weight.size(0) <= idle * Tile;
        bool fits = q.size(0) * weight.numel() <= idle * WeightsMeanwhile;
        return fits && !oneRoundAnyhow ? (int)idle : 0;
    }

    /// <summary>Multiprocessors that the operator on q [B, H, N, D] works on.</summary>
    private static long Occupied(Tensor q)
    {
        const long Columns = 64;   // of a head, for each
        const long Segment = 2048; // tokens, which several may work on at once
        return q.size(0) * q.size(1) * Integer.CeilDiv(q.size(3), Columns) * Integer.CeilDiv(q.size(2), Segment);
    }
}
