using static TorchSharp.torch;

namespace LightningAttn.Modules;

/// <summary>How the rows of the query, key and value projections are laid out.</summary>
public enum QkvLayout
{
    /// <summary>One projection, its rows [H, 3 D]: q, k and v of head 0, then of head 1, ... (MiniMax-01).</summary>
    Interleaved,

    /// <summary>One projection, its rows [3, H, D]: q of all heads, then k, then v (Ling, Ring).</summary>
    Stacked,

    /// <summary>Three projections (TransNormer).</summary>
    Separate,
}

/// <summary>An element-wise function.</summary>
public enum Activation
{
    /// <summary>x.</summary>
    Identity,

    /// <summary>x * sigmoid(x).</summary>
    SiLU,

    /// <summary>1 / (1 + exp(-x)).</summary>
    Sigmoid,
}

/// <summary>The normalization of the heads' outputs.</summary>
public enum OutputNorm
{
    /// <summary>x / sqrt(mean(x^2) + eps) * weight, the mean over a group of channels.</summary>
    RMSNorm,

    /// <summary>(x - mean(x)) / sqrt(var(x) + eps) * weight + bias over all channels.</summary>
    LayerNorm,
}

/// <summary>
/// Which linear-attention layer a <see cref="LightningAttention"/> is. The defaults are MiniMax-01's; take one of the
/// presets and change what a checkpoint's config.json says: <c>LightningAttentionOptions.Ling with { NormGroups = 4 }</c>.
/// </summary>
public sealed record LightningAttentionOptions
{
    /// <summary>The linear layer of MiniMax-Text-01 and M1 (arXiv:2501.08313), under the names of Transformers'
    /// <c>MiniMaxLightningAttention</c>.</summary>
    public static LightningAttentionOptions MiniMax { get; } = new();

    /// <summary>
    /// The linear layer of Ling and Ring 2.5, under the names of its checkpoints. Set <see cref="NormGroups"/> to
    /// group_norm_size, <see cref="RopeTheta"/> to rope_theta, <see cref="RotaryFactor"/> to partial_rotary_factor,
    /// <see cref="QkNorm"/> to use_qk_norm. Implementations differ in the layer that decay rates are counted from:
    /// Transformers passes <c>layer_idx - 1</c> to the slopes' formula; give decay_rates to the module to follow it.
    /// </summary>
    public static LightningAttentionOptions Ling { get; } = new()
    {
        Layout = QkvLayout.Stacked,
        QkvActivation = Activation.Identity,
        QkNorm = true,
        RotaryFactor = 0.5,
        RopeTheta = 6_000_000,
        Scale = null,
        NormGroups = 8,
        Names = new LightningAttentionNames
        {
            Qkv = "query_key_value",
            QueryNorm = "query_layernorm",
            KeyNorm = "key_layernorm",
            Gate = "g_proj",
            Norm = "g_norm",
            Output = "dense",
        },
    };

    /// <summary>The layer of TransNormer (arXiv:2307.14995): three projections, LayerNorm, a gate of rank D.</summary>
    public static LightningAttentionOptions TransNormer { get; } = new()
    {
        Layout = QkvLayout.Separate,
        Norm = OutputNorm.LayerNorm,
        NormEps = 1e-5,
        LowRankGate = true,
        Names = new LightningAttentionNames { Output = "o_proj" },
    };

    /// <summary>Rows of the q, k, v projection.</summary>
    public QkvLayout Layout { get; init; } = QkvLayout.Interleaved;

    /// <summary>Applied to q, k and v.</summary>
    public Activation QkvActivation { get; init; } = Activation.SiLU;

    /// <summary>RMSNorm over D of each head's q and k, with weights [D], before rotary embedding.</summary>
    public bool QkNorm { get; init; }

    /// <summary>Part of D that rotary embedding turns, in halves (NeoX order), 0 to 1; 0: none.</summary>
    public double RotaryFactor { get; init; }

    /// <summary>Base of the rotary frequencies.</summary>
    public double RopeTheta { get; init; } = 10_000;

    /// <summary>Factor of the operator's output; null: 1 / sqrt(D).</summary>
    public double? Scale { get; init; } = 1;

    /// <summary>The normalization of the heads' outputs.</summary>
    public OutputNorm Norm { get; init; } = OutputNorm.RMSNorm;

    /// <summary>Groups that the H D channels are normalized in, each on its own; 1 for LayerNorm.</summary>
    public long NormGroups { get; init; } = 1;

    /// <summary>Added to the variance or mean square, of <see cref="QkNorm"/> too.</summary>
    public double NormEps { get; init; } = 1e-6;

    /// <summary>Applied to the gate.</summary>
    public Activation GateActivation { get; init; } = Activation.Sigmoid;

    /// <summary>The gate is two projections, hidden to D to H D, with names of their own ("0", "1").</summary>
    public bool LowRankGate { get; init; }

    /// <summary>The projections have biases.</summary>
    public bool Bias { get; init; }

    /// <summary>
    /// Mixed precision: the type that q, k and v are rounded to for the operator, whose output is cast back to that of x.
    /// Null: they stay as they are.
    /// </summary>
    public ScalarType? OperatorType { get; init; }

    /// <summary>Names of the submodules in state_dict.</summary>
    public LightningAttentionNames Names { get; init; } = new();
}

/// <summary>Names of the submodules of a <see cref="LightningAttention"/> in state_dict.</summary>
public sealed record LightningAttentionNames
{
    /// <summary>The projection of q, k and v together.</summary>
    public string Qkv { get; init; } = "qkv_proj";

    /// <summary>The projection of q, with <see cref="QkvLayout.Separate"/>.</summary>
    public string Query { get; init; } = "q_proj";

    /// <summary>The projection of k, with <see cref="QkvLayout.Separate"/>.</summary>
    public string Key { get; init; } = "k_proj";

    /// <summary>The projection of v, with <see cref="QkvLayout.Separate"/>.</summary>
    public string Value { get; init; } = "v_proj";

    /// <summary>The normalization of q.</summary>
    public string QueryNorm { get; init; } = "q_norm";

    /// <summary>The normalization of k.</summary>
    public string KeyNorm { get; init; } = "k_norm";

    /// <summary>The gate's projection.</summary>
    public string Gate { get; init; } = "output_gate";

    /// <summary>The normalization of the heads' outputs.</summary>
    public string Norm { get; init; } = "norm";

    /// <summary>The output projection.</summary>
    public string Output { get; init; } = "out_proj";
}
