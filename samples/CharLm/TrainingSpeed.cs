using System.Diagnostics;

namespace CharLm;

/// <summary>Tokens per second of the training steps of this process; a token is a byte.</summary>
/// <remarks>
/// Only time spent in steps counts: no validation, no saving, no display. The first steps, which load kernels and fill
/// libtorch's caches of memory, are left out once there are others.
/// </remarks>
internal sealed class TrainingSpeed(int tokensPerStep)
{
    private const int WarmUpSteps = 10;

    private readonly Stopwatch _clock = new();
    private int _steps;

    public int TokensPerStep => tokensPerStep;

    public int TimedSteps { get; private set; }

    /// <summary>NaN before the first step.</summary>
    public double TokensPerSecond => (double)TimedSteps * tokensPerStep / _clock.Elapsed.TotalSeconds;

    /// <param name="step">Returns when the device has done all of the step.</param>
    public void Time(Action step)
    {
        if (_steps == WarmUpSteps)
        {
            _clock.Reset();
            TimedSteps = 0;
        }

        _clock.Start();
        step();
        _clock.Stop();
        _steps++;
        TimedSteps++;
    }
}
