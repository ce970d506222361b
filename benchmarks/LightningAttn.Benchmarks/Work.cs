namespace LightningAttn.Benchmarks;

/// <summary>What an operation has to move and to compute at least, whatever computes it.</summary>
/// <remarks>
/// Bytes: every tensor read or written once. Forward q, k, v, o; backward q, k, v, do and dq, dk, dv; decode the state in
/// and out and q, k, v, o; verify the state in and q, k, v, o; commit the state in and out and k, v. Operations: the
/// matrix products of the chunked algorithm with whole chunks of C = 64 tokens, a multiplication and an addition for each
/// pair, per token and head
/// <code>
/// forward   2 C (D + E)   q k^T, P v             + 4 D E    q S, k^T v
/// backward  2 C (3 D + 2 E)   q k^T, dP k, dP^T q, do v^T, P^T do
///           + 10 D E          do S^T, v A^T, k A, k^T v, q^T do
/// decode    4 D E         S + k (x) v, S^T q
/// </code>
/// </remarks>
internal readonly record struct Work(long Bytes, double Operations)
{
    private const double Chunk = 64;

    /// <param name="shape">Sizes.</param>
    /// <param name="elementBytes">Of q, k and v.</param>
    /// <param name="states">Block states that are returned, the final one included; 0 when it is alone: the floor
    /// leaves it out.</param>
    public static Work Forward(Shape shape, int elementBytes, long states = 0) =>
        new(
            (4 * shape.Elements * elementBytes) + (states * shape.StateBytes),
            shape.Elements * ((4 * Chunk) + (4.0 * shape.HeadDim)));

    public static Work Backward(Shape shape, int elementBytes) =>
        new(7 * shape.Elements * elementBytes, shape.Elements * ((10 * Chunk) + (10.0 * shape.HeadDim)));

    /// <summary>The forward pass and its backward pass.</summary>
    public static Work ForwardBackward(Shape shape, int elementBytes, long states = 0)
    {
        var (forward, backward) = (Forward(shape, elementBytes, states), Backward(shape, elementBytes));
        return new(forward.Bytes + backward.Bytes, forward.Operations + backward.Operations);
    }

    public static Work Decode(Shape shape, long bytes) => new(bytes, 4.0 * shape.Elements * shape.HeadDim);

    /// <summary>The time in which the device copies that many bytes.</summary>
    public double FloorMicroseconds(double copyBytesPerSecond) => Bytes / copyBytesPerSecond * 1e6;
}

/// <summary>What a time is judged by: the bar must be met, the target is aimed at.</summary>
internal readonly record struct Limits(double BarMicroseconds, double TargetMicroseconds)
{
    public static Limits Forward(double floor) => new((1.6 * floor) + 10, (1.25 * floor) + 6);

    public static Limits ForwardBackward(double floor) => new(2.2 * floor, (1.8 * floor) + 20);

    /// <param name="oneSequence">The time of one sequence of as many tokens.</param>
    /// <param name="floor">With the states of the pool.</param>
    public static Limits Varlen(double oneSequence, double floor) =>
        new((1.3 * oneSequence) + 10, (1.25 * floor) + 10);

    /// <summary>For batches of 16 and more: below that, launching counts.</summary>
    public static Limits Decode(double floor) => new(1.10 * floor, 1.06 * floor);

    /// <summary>States of two bytes: 0.62 of the time that fp32 states take at their floor.</summary>
    public static Limits DecodeOfNarrowStates(double floor) => new(1.24 * floor, 1.10 * floor);

    /// <summary>One row of 64 heads of 128: launches, not memory.</summary>
    public static Limits DecodeOfOneRow => new(4.4, 3.5);

    /// <summary>1.5 of the time of a decode step, whose floor is twice as high: it writes states too.</summary>
    public static Limits Verify(double floor) => new(3.0 * floor, 1.5 * floor);
}
