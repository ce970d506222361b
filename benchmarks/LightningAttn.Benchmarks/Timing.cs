namespace LightningAttn.Benchmarks;

/// <summary>Time of one call.</summary>
/// <param name="Microseconds">Median over the samples.</param>
/// <param name="Best">The shortest sample.</param>
/// <param name="HostMicroseconds">Median time until a call returns with its work queued; null on the CPU.</param>
internal readonly record struct Timing(double Microseconds, double Best, double? HostMicroseconds);
