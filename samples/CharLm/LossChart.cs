using ScottPlot;

namespace CharLm;

/// <summary>Draws the loss curve as a PNG, with the loss of the unigram model to compare.</summary>
internal static class LossChart
{
    private const int WidthPixels = 1200;
    private const int HeightPixels = 700;
    private const double Smoothing = 0.9;

    public static void Save(string pngFile, TrainingHistory history, double unigramLoss)
    {
        using var plot = new Plot();
        var steps = Enumerable.Range(1, history.TrainingLosses.Count).Select(i => (double)i).ToArray();
        var losses = history.TrainingLosses.Select(loss => (double)loss).ToArray();

        var raw = plot.Add.ScatterLine(steps, losses, Colors.SteelBlue.WithAlpha(0.25));
        raw.LegendText = "training";
        var smooth = plot.Add.ScatterLine(steps, Smooth(losses), Colors.SteelBlue);
        smooth.LineWidth = 2;
        smooth.LegendText = "training, smoothed";

        var validation = plot.Add.Scatter(
            history.ValidationLosses.Select(point => (double)point.Step).ToArray(),
            history.ValidationLosses.Select(point => point.Loss).ToArray(),
            Colors.DarkOrange);
        validation.LineWidth = 2;
        validation.MarkerSize = 7;
        validation.LegendText = "validation";

        var unigram = plot.Add.HorizontalLine(unigramLoss, color: Colors.Gray, pattern: LinePattern.Dashed);
        unigram.LegendText = $"unigram model {unigramLoss:F3}";

        plot.XLabel("step");
        plot.YLabel("loss, nats per byte");
        plot.Axes.SetLimitsY(0, Math.Ceiling(Math.Max(unigramLoss, losses.DefaultIfEmpty(0).Max())));
        plot.ShowLegend(Alignment.UpperRight);
        plot.SavePng(pngFile, WidthPixels, HeightPixels);
    }

    // Exponential mean that starts unbiased: early values are weighed as if there were nothing before them.
    private static double[] Smooth(double[] values)
    {
        var result = new double[values.Length];
        var (mean, weight) = (0.0, 0.0);
        for (var i = 0; i < values.Length; i++)
        {
            mean = (Smoothing * mean) + ((1 - Smoothing) * values[i]);
            weight = (Smoothing * weight) + (1 - Smoothing);
            result[i] = mean / weight;
        }

        return result;
    }
}
