using System.Diagnostics;

namespace Serve;

/// <summary>How far a run has come.</summary>
internal sealed class ServingStatus
{
    public int Requests { get; init; }

    public int Steps { get; set; }

    public int Active { get; set; }

    public int MostActive { get; set; }

    public int Waiting { get; set; }

    public int Finished { get; set; }

    public long PromptTokens { get; set; }

    public long NewTokens { get; set; }

    public TimeSpan Elapsed { get; set; }

    public StepTimes StepTimes { get; } = new();

    public double PromptTokensPerSecond => PromptTokens / Math.Max(Elapsed.TotalSeconds, 1e-9);

    public double NewTokensPerSecond => NewTokens / Math.Max(Elapsed.TotalSeconds, 1e-9);
}

/// <summary>Lets requests arrive at an engine, step by step, until all are served.</summary>
internal static class Server
{
    /// <param name="engine">The engine.</param>
    /// <param name="requests">By arrival.</param>
    /// <param name="report">Called after each step.</param>
    /// <param name="cancellation">Ends the run after a step.</param>
    /// <returns>The streams that were finished.</returns>
    public static List<GenerationStream> Run(
        Engine engine, IReadOnlyList<Request> requests, Action<ServingStatus> report, CancellationToken cancellation)
    {
        var status = new ServingStatus { Requests = requests.Count };
        var finished = new List<GenerationStream>();
        var clock = Stopwatch.StartNew();
        var arrived = 0;
        while ((arrived < requests.Count || !engine.IsIdle) && !cancellation.IsCancellationRequested)
        {
            for (; arrived < requests.Count && requests[arrived].ArrivalStep <= status.Steps; arrived++)
            {
                engine.Submit(requests[arrived]);
            }

            if (!engine.IsIdle)
            {
                var start = clock.Elapsed;
                var step = engine.Step();
                status.StepTimes.Add(clock.Elapsed - start);
                finished.AddRange(step.Finished);
                status.PromptTokens += step.PromptTokens;
                status.NewTokens += step.NewTokens;
                status.MostActive = Math.Max(status.MostActive, engine.Active + step.Finished.Count);
            }

            status.Steps++;
            (status.Active, status.Waiting, status.Finished) = (engine.Active, engine.Waiting, finished.Count);
            status.Elapsed = clock.Elapsed;
            report(status);
        }

        return finished;
    }
}
