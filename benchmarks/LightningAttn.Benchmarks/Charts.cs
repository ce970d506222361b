using System.Globalization;
using ScottPlot;
using ScottPlot.TickGenerators;

namespace LightningAttn.Benchmarks;

/// <summary>Draws time and floor ratio as PNGs, against each size along which enough shapes were measured.</summary>
internal static class Charts
{
    private const int WidthPixels = 1200;
    private const int HeightPixels = 700;
    private const int MinPoints = 3;

    private static readonly Axis[] s_axes =
    [
        new("tokens", shape => shape.Tokens, shape => shape with { Tokens = 0 },
            shape => $"tokens N, B = {shape.Batch}, H = {shape.Heads}"),
        new("heads", shape => shape.Batch * shape.Heads,
            shape => shape with { Batch = 1, Heads = 1, Tokens = shape.Batch * shape.Heads * shape.Tokens },
            shape => $"heads B x H, B x H x N = {shape.Tokens}"),
        new("batch", shape => shape.Batch, shape => shape with { Batch = 0 },
            shape => $"sequences B, H = {shape.Heads}, N = {shape.Tokens}"),
    ];

    /// <summary>From a JSON file of an earlier run.</summary>
    /// <exception cref="FormatException">It does not hold one.</exception>
    public static void DrawFrom(string jsonFile, string folder)
    {
        try
        {
            var lines = Report.Read(jsonFile).ToList();
            Draw(lines.OfType<Machine>().First(), lines.OfType<Row>().ToList(), folder);
        }
        catch (Exception e) when (e is System.Text.Json.JsonException or InvalidOperationException)
        {
            throw new FormatException($"{jsonFile} is not what --json writes: {e.Message}", e);
        }
    }

    public static void Draw(Machine machine, IReadOnlyList<Row> rows, string folder)
    {
        Directory.CreateDirectory(folder);
        foreach (var operation in rows.GroupBy(row => row.Operation))
        {
            foreach (var axis in s_axes)
            {
                // The longest series of shapes that differ in this size alone.
                var series = operation.GroupBy(row => axis.Rest(row.Shape)).MaxBy(group => PointsOf(group, axis))!;
                if (PointsOf(series, axis) < MinPoints)
                {
                    continue;
                }

                var stem = Path.Combine(folder, $"{operation.Key.Replace(" + ", "-")}-{axis.Name}");
                var title = $"{operation.Key}, {machine.Device}, {machine.Type}, D = E = {series.Key.HeadDim}";
                Save($"{stem}-time.png", title, axis.Label(series.Key), "microseconds", series, axis, 1);
                Save($"{stem}-floor.png", title, axis.Label(series.Key), "time / floor", series, axis, null);
            }
        }
    }

    private static int PointsOf(IEnumerable<Row> rows, Axis axis) =>
        rows.Select(row => axis.Size(row.Shape)).Distinct().Count();

    /// <param name="png">File to write.</param>
    /// <param name="title">Of the chart.</param>
    /// <param name="xLabel">Of the size.</param>
    /// <param name="yLabel">Of the values.</param>
    /// <param name="rows">All variants.</param>
    /// <param name="axis">The size along x.</param>
    /// <param name="unit">1 to draw times, null to draw them in units of each row's floor.</param>
    private static void Save(
        string png, string title, string xLabel, string yLabel, IEnumerable<Row> rows, Axis axis, double? unit)
    {
        var sorted = rows.OrderBy(row => axis.Size(row.Shape)).ToList();
        var judged = sorted.Where(row => row.Limits is not null).ToList();
        var first = sorted.Where(row => row.Variant == sorted[0].Variant).ToList();
        var drawn = new List<double>();
        using var plot = new Plot();
        foreach (var variant in sorted.GroupBy(row => row.Variant))
        {
            Add(variant.Key, variant, row => row.Time.Microseconds).MarkerSize = 7;
        }

        AddLimit("bar", judged, row => row.Limits!.Value.BarMicroseconds, LinePattern.Dashed);
        AddLimit("target", judged, row => row.Limits!.Value.TargetMicroseconds, LinePattern.Dotted);
        AddLimit("floor", first, row => row.FloorMicroseconds, LinePattern.Solid);

        var sizes = sorted.Select(row => axis.Size(row.Shape)).Distinct().ToArray();
        var bottom = new NumericManual();
        foreach (var size in sizes)
        {
            bottom.AddMajor(Math.Log10(size), size.ToString(CultureInfo.InvariantCulture));
        }

        plot.Axes.Bottom.TickGenerator = bottom;
        plot.Axes.Left.TickGenerator = LogTicks(drawn.Min(), drawn.Max());
        plot.Title(title);
        plot.XLabel(xLabel);
        plot.YLabel(yLabel);
        plot.ShowLegend(Edge.Right);
        plot.SavePng(png, WidthPixels, HeightPixels);

        ScottPlot.Plottables.Scatter Add(string name, IEnumerable<Row> series, Func<Row, double> microseconds)
        {
            var points = series
                .Select(row => (X: axis.Size(row.Shape), Y: microseconds(row) / (unit ?? row.FloorMicroseconds)))
                .ToArray();
            drawn.AddRange(points.Select(point => point.Y));
            var line = plot.Add.Scatter(
                points.Select(point => Math.Log10(point.X)).ToArray(),
                points.Select(point => Math.Log10(point.Y)).ToArray());
            line.LegendText = name;
            line.LineWidth = 2;
            return line;
        }

        void AddLimit(string name, List<Row> series, Func<Row, double> microseconds, LinePattern pattern)
        {
            if (series.Count > 0)
            {
                var line = Add(name, series, microseconds);
                (line.Color, line.LinePattern, line.MarkerSize) = (Colors.Gray, pattern, 0);
            }
        }
    }

    /// <summary>1, 2, 5, 10, 20, ... between the ends.</summary>
    private static NumericManual LogTicks(double low, double high)
    {
        var ticks = new NumericManual();
        for (var power = (int)Math.Floor(Math.Log10(low)); power <= Math.Ceiling(Math.Log10(high)); power++)
        {
            foreach (var digit in new[] { 1, 2, 5 })
            {
                var value = digit * Math.Pow(10, power);
                ticks.AddMajor(Math.Log10(value), value.ToString("G3", CultureInfo.InvariantCulture));
            }
        }

        return ticks;
    }

    /// <summary>A size that varies between shapes.</summary>
    /// <param name="Name">In file names.</param>
    /// <param name="Size">Its value.</param>
    /// <param name="Rest">Equal for shapes that differ in this size alone.</param>
    /// <param name="Label">What is drawn below the axis, given the rest.</param>
    private sealed record Axis(string Name, Func<Shape, int> Size, Func<Shape, Shape> Rest, Func<Shape, string> Label);
}
