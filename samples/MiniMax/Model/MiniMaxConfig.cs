namespace MiniMax.Model;

/// <summary>A model as its config.json describes it; made by <see cref="ConfigFile"/>.</summary>
internal sealed record MiniMaxConfig
{
    public required long VocabularySize { get; init; }

    public required long HiddenSize { get; init; }

    /// <summary>Inner width of an expert.</summary>
    public required long IntermediateSize { get; init; }

    /// <summary>Query heads of a softmax layer, and all heads of a linear one.</summary>
    public required long Heads { get; init; }

    public required long KeyValueHeads { get; init; }

    public required long HeadDim { get; init; }

    public required long Experts { get; init; }

    /// <summary>Experts that compute a token.</summary>
    public required long ExpertsPerToken { get; init; }

    /// <summary>Of the norms in front of attention, experts and head. That of linear attention has 1e-6.</summary>
    public required double NormEps { get; init; }

    public required double RopeTheta { get; init; }

    /// <summary>The head's weights are the embedding's.</summary>
    public required bool TiedEmbeddings { get; init; }

    /// <summary>Per layer: linear attention, else softmax.</summary>
    public required IReadOnlyList<bool> IsLinear { get; init; }

    public required ResidualFactors LinearAttention { get; init; }

    public required ResidualFactors FullAttention { get; init; }

    public required ResidualFactors Mlp { get; init; }

    public int Layers => IsLinear.Count;

    public override string ToString() =>
        $"{Layers} layers ({IsLinear.Count(linear => linear)} linear), {Heads} heads of {HeadDim}, {KeyValueHeads} "
        + $"key/value heads, width {HiddenSize}, {ExpertsPerToken} of {Experts} experts of {IntermediateSize}, "
        + $"vocabulary {VocabularySize}";
}

/// <summary>h = Alpha * r + Beta * f(r), where r is what f reads.</summary>
internal readonly record struct ResidualFactors(double Alpha, double Beta);
