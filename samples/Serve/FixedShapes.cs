using TorchSharp;

namespace Serve;

/// <summary>
/// What makes libtorch compute a token's row with the same bits in every batch. The operators of this library promise
/// that; libtorch's dense layers do not.
/// </summary>
/// <remarks>
/// A matrix product chooses its code by the shapes: a row of [1, K] x [K, N] differs in the last bits from the same row
/// of [32, K] x [K, N]. The engine therefore runs every pass of the model at one shape, whatever the number of streams,
/// and fills up with rows that nobody reads. At one shape a row depends on its own values alone, provided that it is
/// computed by the same code wherever it stands in the batch:
/// <list type="bullet">
/// <item>Products of few rows share their rows out among threads unevenly, and the pieces have kernels of their own.
/// From 8 rows on that was not seen.</item>
/// <item>On the CPU the ends of a thread's piece of an elementwise function are computed by other code than its vectors
/// (exp of the C library), which rounds differently. Pieces that are multiples of 32 elements have no such ends. With
/// rows in multiples of 64 that is so for one and for two threads.</item>
/// </list>
/// None of that is promised by libtorch, which is why <see cref="Verifier"/> compares bits.
/// </remarks>
internal static class FixedShapes
{
    private const int RowMultiple = 64;
    private const int MaxThreads = 2;

    public static int PadRows(int rows) => (rows + RowMultiple - 1) / RowMultiple * RowMultiple;

    /// <summary>libtorch's threads on the CPU; those of the operators are not affected.</summary>
    public static void LimitThreads() => torch.set_num_threads(Math.Min(torch.get_num_threads(), MaxThreads));
}
