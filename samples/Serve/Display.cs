using System.Diagnostics;
using Spectre.Console;

namespace Serve;

/// <summary>Shows a running server: a table on a terminal, a line every few seconds elsewhere.</summary>
internal static class Display
{
    private static readonly TimeSpan s_timeBetweenTables = TimeSpan.FromSeconds(0.2);
    private static readonly TimeSpan s_timeBetweenLines = TimeSpan.FromSeconds(5);

    private static bool IsTerminal => AnsiConsole.Profile.Capabilities.Ansi && !Console.IsOutputRedirected;

    /// <param name="serve">Runs the server and reports to the action that it is given.</param>
    public static void Show(Action<Action<ServingStatus>> serve)
    {
        ServingStatus? last = null;
        if (IsTerminal)
        {
            AnsiConsole.Live(new Table()).AutoClear(true).Start(context => serve(Every(s_timeBetweenTables, status =>
                context.UpdateTarget(TableOf(status)))));
        }
        else
        {
            serve(Every(s_timeBetweenLines, status => Console.WriteLine(LineOf(status))));
        }

        if (last is not null)
        {
            AnsiConsole.Write(TableOf(last));
        }

        Action<ServingStatus> Every(TimeSpan time, Action<ServingStatus> show)
        {
            var sinceShown = Stopwatch.StartNew();
            return status =>
            {
                last = status;
                if (sinceShown.Elapsed > time)
                {
                    show(status);
                    sinceShown.Restart();
                }
            };
        }
    }

    /// <summary>As <see cref="Show"/>, for a verification that reports how many streams it has compared.</summary>
    public static void ShowVerification(int streams, Action<Action<int>> verify)
    {
        if (IsTerminal)
        {
            AnsiConsole.Progress()
                .AutoClear(true)
                .Start(context =>
                {
                    var task = context.AddTask("verifying", maxValue: streams);
                    verify(compared => task.Value = compared);
                });
        }
        else
        {
            verify(_ => { });
        }
    }

    /// <summary>Streams: now, and at most. Speeds: tokens of prompts, and generated ones. Times: of steps.</summary>
    private static Table TableOf(ServingStatus status)
    {
        var table = new Table().Border(TableBorder.Simple);
        foreach (var heading in new[]
        {
            "served", "streams", "waiting", "steps", "read/s", "new/s", "p50 ms", "p99 ms",
        })
        {
            table.AddColumn(new TableColumn(heading).RightAligned().NoWrap());
        }

        return table.AddRow(
            $"{status.Finished}/{status.Requests}",
            $"{status.Active} ({status.MostActive})",
            $"{status.Waiting}",
            $"{status.Steps}",
            $"{status.PromptTokensPerSecond:N0}",
            $"{status.NewTokensPerSecond:N0}",
            $"{status.StepTimes.Percentile(0.5):F2}",
            $"{status.StepTimes.Percentile(0.99):F2}");
    }

    private static string LineOf(ServingStatus status) =>
        $"step {status.Steps}  {status.Finished} of {status.Requests} requests  {status.Active} streams  "
        + $"{status.Waiting} waiting  {status.NewTokensPerSecond:N0} new tok/s  "
        + $"p50 {status.StepTimes.Percentile(0.5):F2} ms  p99 {status.StepTimes.Percentile(0.99):F2} ms";
}
