namespace LightningAttn.Benchmarks;

/// <summary>Time of one call.</summary>
/// <param name="Microseconds">Median over the samples.</param>
/// <param name="Low">10th percentile.</param>
/// <param name="High">90th percentile.</param>
/// <param name="HostMicroseconds">Median time until a call returns with its work queued; null on the CPU.</param>
/// <param name="HostShows">Whether the device may have waited for the host; null on the CPU.</param>
internal readonly record struct Timing(
    double Microseconds, double Low, double High, double? HostMicroseconds, bool? HostShows)
{
    public double SpreadPercent => 100 * (High - Low) / Microseconds;

    public static Timing Of(double[] samples, double[]? hostSamples = null, bool? hostShows = null) =>
        new(
            Quantile(samples, 0.5),
            Quantile(samples, 0.1),
            Quantile(samples, 0.9),
            hostSamples is null ? null : Quantile(hostSamples, 0.5),
            hostShows);

    /// <summary>Interpolated between the two nearest values.</summary>
    private static double Quantile(double[] values, double fraction)
    {
        var sorted = values.Order().ToArray();
        var position = fraction * (sorted.Length - 1);
        var below = (int)position;
        var above = Math.Min(below + 1, sorted.Length - 1);
        return sorted[below] + ((position - below) * (sorted[above] - sorted[below]));
    }
}
