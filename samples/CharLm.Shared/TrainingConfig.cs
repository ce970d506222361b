namespace CharLm;

/// <summary>How a model is trained. It ends at Steps or after MaxMinutes, whichever comes first.</summary>
internal sealed record TrainingConfig
{
    private const int WarmUpSteps = 40;
    private const double FinalRate = 0.05;

    /// <summary>Steps of the whole run, those before a resume included.</summary>
    public int? Steps { get; init; }

    /// <summary>Time of the whole run, that before a resume included.</summary>
    public double? MaxMinutes { get; init; }

    public required int Batch { get; init; }

    public required int SequenceLength { get; init; }

    /// <summary>The highest learning rate: after the warm-up.</summary>
    public required double LearningRate { get; init; }

    public required ulong Seed { get; init; }

    /// <summary>How much of the run is done, 0 to 1.</summary>
    public double Progress(int step, TimeSpan elapsed)
    {
        var bySteps = Steps is { } steps ? Fraction(step, steps) : 0;
        var byTime = MaxMinutes is { } minutes ? Fraction(elapsed.TotalMinutes, minutes) : 0;
        return Math.Max(bySteps, byTime);
    }

    /// <summary>Linear warm-up, then half a cosine down to a twentieth of the peak.</summary>
    public double LearningRateAt(int step, double progress)
    {
        var warmUp = Math.Min(1, (step + 1.0) / WarmUpSteps);
        var cosine = FinalRate + ((1 - FinalRate) * 0.5 * (1 + Math.Cos(Math.PI * progress)));
        return LearningRate * warmUp * cosine;
    }

    private static double Fraction(double done, double whole) => whole > 0 ? Math.Min(1, done / whole) : 1;
}
