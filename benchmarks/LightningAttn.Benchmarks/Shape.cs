using System.Globalization;

namespace LightningAttn.Benchmarks;

/// <summary>Batch, heads, tokens and head size (D = E) of one row. Decoding rows have one token.</summary>
internal readonly record struct Shape(int Batch, int Heads, int Tokens, int HeadDim)
{
    /// <summary>"B,H,N,D;B,H,N,D" (<paramref name="axes"/> 4) or "B,H,D;B,H,D" (3, for decoding).</summary>
    /// <exception cref="FormatException">It is something else.</exception>
    public static Shape[] ParseList(string text, int axes) =>
        text.Split(';', StringSplitOptions.RemoveEmptyEntries | StringSplitOptions.TrimEntries)
            .Select(shape => Parse(shape, axes))
            .ToArray();

    public override string ToString() =>
        Tokens == 1 ? $"{Batch},{Heads},{HeadDim}" : $"{Batch},{Heads},{Tokens},{HeadDim}";

    private static Shape Parse(string text, int axes)
    {
        var sizes = new List<int>();
        foreach (var part in text.Split(','))
        {
            if (!int.TryParse(part, CultureInfo.InvariantCulture, out var size) || size < 1)
            {
                throw new FormatException($"'{text}': '{part}' is not a positive number");
            }

            sizes.Add(size);
        }

        return sizes switch
        {
            [var b, var h, var n, var d] when axes == 4 => new Shape(b, h, n, d),
            [var b, var h, var d] when axes == 3 => new Shape(b, h, 1, d),
            _ => throw new FormatException($"'{text}' is not {(axes == 4 ? "B,H,N,D" : "B,H,D")}"),
        };
    }
}
