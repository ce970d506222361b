using System.Globalization;

namespace LightningAttn.Benchmarks;

/// <summary>Batch, heads, tokens and head size (D = E) of one row. Decoding rows have one token.</summary>
internal readonly record struct Shape(int Batch, int Heads, int Tokens, int HeadDim)
{
    private const int DefaultHeadDim = 128;

    /// <summary>Elements of q.</summary>
    internal long Elements => (long)Batch * Heads * Tokens * HeadDim;

    /// <summary>Elements of one state of every head.</summary>
    internal long States => (long)Batch * Heads * HeadDim * HeadDim;

    /// <summary>Their bytes as fp32.</summary>
    internal long StateBytes => States * sizeof(float);

    /// <summary>"B,H,N,D;B,H,N,D".</summary>
    /// <exception cref="FormatException">It is something else.</exception>
    public static Shape[] ParseSequences(string text) =>
        ParseList(text, sizes => sizes switch
        {
            [var b, var h, var n] => new Shape(b, h, n, DefaultHeadDim),
            [var b, var h, var n, var d] => new Shape(b, h, n, d),
            _ => null,
        });

    /// <summary>"B,H,D;B,H,D", for decoding.</summary>
    /// <exception cref="FormatException">It is something else.</exception>
    public static Shape[] ParseTokens(string text) =>
        ParseList(text, sizes => sizes switch
        {
            [var b, var h] => new Shape(b, h, 1, DefaultHeadDim),
            [var b, var h, var d] => new Shape(b, h, 1, d),
            _ => null,
        });

    public override string ToString() =>
        Tokens == 1 ? $"{Batch},{Heads},{HeadDim}" : $"{Batch},{Heads},{Tokens},{HeadDim}";

    private static Shape[] ParseList(string text, Func<int[], Shape?> create) =>
        text.Split(';', StringSplitOptions.RemoveEmptyEntries | StringSplitOptions.TrimEntries)
            .Select(shape => create(shape.Split(',').Select(ParseSize).ToArray())
                ?? throw new FormatException($"'{shape}' has the wrong number of sizes"))
            .ToArray();

    private static int ParseSize(string text) =>
        int.TryParse(text, CultureInfo.InvariantCulture, out var size) && size >= 1
            ? size
            : throw new FormatException($"'{text}' is not a positive number");
}
