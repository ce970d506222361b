namespace CharLm.Model;

/// <summary>The sizes of a model: all that is needed to build it again.</summary>
internal sealed record ModelConfig
{
    public const int VocabularySize = 256;

    public required int Layers { get; init; }

    public required int Heads { get; init; }

    /// <summary>Width of the residual stream; a head has Dim / Heads of it.</summary>
    public required int Dim { get; init; }

    public int HeadDim => Dim / Heads;

    /// <summary>
    /// Inner width of the SwiGLU: 8/3 of Dim, so that its three matrices hold 8 Dim^2 weights, rounded up.
    /// </summary>
    public int MlpDim => ((Dim * 8 / 3) + 31) / 32 * 32;

    public override string ToString() => $"{Layers} layers, {Heads} heads of {HeadDim}, width {Dim}";
}
