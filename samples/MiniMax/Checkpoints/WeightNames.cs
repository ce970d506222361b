using System.Text.RegularExpressions;
using MiniMax.Model;
using TorchSharp.Modules;

namespace MiniMax.Checkpoints;

/// <summary>
/// The names that checkpoints have for a model's parameters: those of the modules of transformers 5, where the experts
/// of a layer are packed into two tensors, and those of published checkpoints, where each matrix of an expert is one:
/// <code>
/// mlp.experts.gate_up_proj[e] = [ block_sparse_moe.experts.e.w1.weight ; block_sparse_moe.experts.e.w3.weight ]
/// mlp.experts.down_proj[e]    =   block_sparse_moe.experts.e.w2.weight
/// </code>
/// </summary>
internal sealed partial class WeightNames
{
    private const string PackedGateUp = ".mlp.experts.gate_up_proj";
    private const string PackedDown = ".mlp.experts.down_proj";

    private readonly Dictionary<string, WeightTarget> _targets = new(StringComparer.Ordinal);
    private readonly bool _tiedEmbeddings;

    public WeightNames(MiniMaxModel model)
    {
        _tiedEmbeddings = model.Config.TiedEmbeddings;
        foreach (var (name, parameter) in model.named_parameters())
        {
            Add(name, name, parameter, -1, 0, 0);
            AddExperts(name, parameter, model.Config);
        }
    }

    /// <summary>What a tensor of a checkpoint fills; null: nothing that this model has.</summary>
    public WeightTarget? Find(string name) =>
        _targets.GetValueOrDefault(name.Replace(".block_sparse_moe.", ".mlp.", StringComparison.Ordinal));

    /// <summary>
    /// Decay factors of linear layers and frequencies of rotary positions, which follow from the configuration; and the
    /// head's weights where they are the embedding's.
    /// </summary>
    public bool IsIgnored(string name) =>
        DerivedTensor().IsMatch(name) || (_tiedEmbeddings && name == "lm_head.weight");

    private void AddExperts(string name, Parameter parameter, MiniMaxConfig config)
    {
        var inner = config.IntermediateSize;
        for (var expert = 0; expert < config.Experts; expert++)
        {
            if (name.EndsWith(PackedGateUp, StringComparison.Ordinal))
            {
                Add(NameOf("w1", expert), name, parameter, expert, 0, inner);
                Add(NameOf("w3", expert), name, parameter, expert, inner, inner);
            }
            else if (name.EndsWith(PackedDown, StringComparison.Ordinal))
            {
                Add(NameOf("w2", expert), name, parameter, expert, 0, config.HiddenSize);
            }
        }

        string NameOf(string matrix, int expert) => $"{name[..name.LastIndexOf('.')]}.{expert}.{matrix}.weight";
    }

    private void Add(string name, string parameterName, Parameter parameter, long expert, long firstRow, long rows) =>
        _targets.Add(name, new WeightTarget(parameterName, parameter, expert, firstRow, rows));

    [GeneratedRegex(@"\.self_attn\.(slope_rate|query_decay|key_decay|diagonal_decay)$|rotary_emb\.inv_freq$")]
    private static partial Regex DerivedTensor();
}
