using System.Diagnostics;
using Spectre.Console;
using Spectre.Console.Rendering;

namespace CharLm;

/// <summary>Shows a running training: a progress bar on a terminal, a line every few seconds elsewhere.</summary>
internal static class TrainingDisplay
{
    private static readonly TimeSpan s_timeBetweenLines = TimeSpan.FromSeconds(5);

    public static void Show(Action<Action<TrainingStatus>> train)
    {
        if (AnsiConsole.Profile.Capabilities.Ansi && !Console.IsOutputRedirected)
        {
            ShowBar(train);
        }
        else
        {
            ShowLines(train);
        }
    }

    private static void ShowBar(Action<Action<TrainingStatus>> train)
    {
        var status = new StatusColumn();
        AnsiConsole.Progress()
            .Columns(new ProgressBarColumn { Width = 14 }, new PercentageColumn(), status)
            .Start(context =>
            {
                var task = context.AddTask("training", maxValue: 1);
                train(now =>
                {
                    status.Text = Describe(now);
                    task.Value = now.Progress;
                });
            });
    }

    private static void ShowLines(Action<Action<TrainingStatus>> train)
    {
        var sinceLine = Stopwatch.StartNew();
        TrainingStatus? unprinted = null;
        train(now =>
        {
            unprinted = now;
            if (sinceLine.Elapsed > s_timeBetweenLines)
            {
                Console.WriteLine(Describe(now));
                sinceLine.Restart();
                unprinted = null;
            }
        });
        if (unprinted is { } last)
        {
            Console.WriteLine(Describe(last));
        }
    }

    private static string Describe(TrainingStatus status)
    {
        var validation = status.ValidationLoss?.ToString("F3") ?? "-";
        return $"step {status.Step}  loss {status.Loss:F3}  val {validation}  {status.TokensPerSecond:N0} tok/s  "
            + $"{status.TimeLeft:m\\:ss} left";
    }

    private sealed class StatusColumn : ProgressColumn
    {
        public volatile string Text = "";

        public override IRenderable Render(RenderOptions options, ProgressTask task, TimeSpan deltaTime) =>
            new Text(Text);
    }
}
