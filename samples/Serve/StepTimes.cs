namespace Serve;

/// <summary>How long steps took, in milliseconds.</summary>
internal sealed class StepTimes
{
    private readonly List<float> _times = [];

    public int Count => _times.Count;

    public void Add(TimeSpan time) => _times.Add((float)time.TotalMilliseconds);

    /// <summary>The time that a fraction of the steps did not exceed; NaN without steps.</summary>
    public double Percentile(double fraction)
    {
        if (_times.Count == 0)
        {
            return double.NaN;
        }

        var sorted = _times.ToArray();
        Array.Sort(sorted);
        return sorted[Math.Max(0, (int)Math.Ceiling(fraction * sorted.Length) - 1)];
    }
}
