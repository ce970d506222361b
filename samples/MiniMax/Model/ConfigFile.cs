using System.Text.Json;
using CharLm;

namespace MiniMax.Model;

/// <summary>Reads and checks a config.json as Hugging Face transformers writes it for MiniMaxForCausalLM.</summary>
internal sealed class ConfigFile
{
    private const string LinearLayer = "linear_attention";
    private const string FullLayer = "full_attention";
    private const long MaxSize = int.MaxValue;
    private const int MaxLayers = 10_000;

    private readonly string _path;
    private readonly JsonElement _root;

    private ConfigFile(string path, JsonElement root) => (_path, _root) = (path, root);

    /// <exception cref="UserErrorException">There is no such file, or it describes no model that this program has.
    /// </exception>
    public static MiniMaxConfig Read(string path)
    {
        try
        {
            using var document = JsonDocument.Parse(
                File.ReadAllBytes(path), new JsonDocumentOptions { MaxDepth = 16, AllowDuplicateProperties = false });
            var file = new ConfigFile(path, document.RootElement);
            file.Require(document.RootElement.ValueKind == JsonValueKind.Object, "is no JSON object");
            file.CheckKind();
            return file.Create();
        }
        catch (Exception e) when (
            e is IOException or UnauthorizedAccessException or JsonException or InvalidOperationException)
        {
            throw new UserErrorException($"{path} cannot be read: {e.Message}", e);
        }
    }

    /// <summary>Refuses what would be computed wrongly.</summary>
    private void CheckKind()
    {
        RequireText("model_type", "minimax");
        RequireText("hidden_act", "silu");
        Require(IsAbsent("sliding_window"), "sliding_window is not supported");
        Require(IsAbsent("rope_scaling"), "rope_scaling is not supported");
        if (Find("rope_parameters") is { } rope)
        {
            Require(rope.ValueKind == JsonValueKind.Object, "rope_parameters is no object");
            Require(
                !rope.TryGetProperty("rope_type", out var type) || IsText(type, "default"),
                "rope_parameters: rope_type is not 'default', the only one that is supported");
            Require(
                !rope.TryGetProperty("partial_rotary_factor", out var factor) || factor.ToString() is "1" or "1.0",
                "rope_parameters: partial_rotary_factor is not supported; whole heads are rotated");
        }
    }

    private MiniMaxConfig Create()
    {
        var heads = Size("num_attention_heads");
        var hidden = Size("hidden_size");
        var config = new MiniMaxConfig
        {
            VocabularySize = Size("vocab_size"),
            HiddenSize = hidden,
            IntermediateSize = Size("intermediate_size"),
            Heads = heads,
            KeyValueHeads = IsAbsent("num_key_value_heads") ? heads : Size("num_key_value_heads"),
            HeadDim = IsAbsent("head_dim") ? hidden / heads : Size("head_dim"),
            Experts = Size("num_local_experts"),
            ExpertsPerToken = Size("num_experts_per_tok"),
            NormEps = Positive("rms_norm_eps", _root, null),
            RopeTheta = Positive("rope_theta", Find("rope_parameters") ?? _root, null),
            TiedEmbeddings = Flag("tie_word_embeddings"),
            IsLinear = ReadLayerTypes(),
            LinearAttention = Factors("linear_attn"),
            FullAttention = Factors("full_attn"),
            Mlp = Factors("mlp"),
        };
        Require(config.HeadDim >= 1, $"hidden_size {hidden} is less than num_attention_heads {heads}");
        Require(config.HeadDim % 2 == 0, $"head_dim {config.HeadDim} is odd: channels are rotated in pairs");
        Require(
            heads % config.KeyValueHeads == 0,
            $"num_attention_heads {heads} is not a multiple of num_key_value_heads {config.KeyValueHeads}");
        Require(
            config.ExpertsPerToken <= config.Experts,
            $"num_experts_per_tok {config.ExpertsPerToken} is more than num_local_experts {config.Experts}");
        Require(
            IsAbsent("rotary_dim") || Size("rotary_dim") == config.HeadDim,
            $"rotary_dim is not head_dim {config.HeadDim}: whole heads are rotated");
        return config;
    }

    /// <summary>Absent: every other layer is linear, beginning with the second.</summary>
    private bool[] ReadLayerTypes()
    {
        var layers = Size("num_hidden_layers");
        Require(layers <= MaxLayers, $"num_hidden_layers {layers} is more than {MaxLayers}");
        if (IsAbsent("layer_types"))
        {
            return [.. Enumerable.Range(0, (int)layers).Select(layer => layer % 2 == 1)];
        }

        var list = Find("layer_types")!.Value;
        Require(list.ValueKind == JsonValueKind.Array, "layer_types is no list");
        Require(
            list.GetArrayLength() == layers,
            $"layer_types has {list.GetArrayLength()} entries for {layers} layers");
        return [.. list.EnumerateArray().Select(type =>
        {
            Require(
                IsText(type, LinearLayer) || IsText(type, FullLayer),
                $"layer_types: {type.GetRawText()} is neither {LinearLayer} nor {FullLayer}");
            return IsText(type, LinearLayer);
        })];
    }

    private ResidualFactors Factors(string part) =>
        new(Number($"{part}_alpha_factor", _root, 1), Number($"{part}_beta_factor", _root, 1));

    private long Size(string name)
    {
        var value = 0L;
        Require(
            Find(name) is { ValueKind: JsonValueKind.Number } found && found.TryGetInt64(out value)
            && value is >= 1 and <= MaxSize,
            $"{name} must be a whole number from 1 to {MaxSize}");
        return value;
    }

    private double Positive(string name, JsonElement parent, double? absent)
    {
        var value = Number(name, parent, absent);
        Require(value > 0, $"{name} must be a positive number");
        return value;
    }

    private double Number(string name, JsonElement parent, double? absent)
    {
        if (!parent.TryGetProperty(name, out var found) && absent is { } value)
        {
            return value;
        }

        var number = double.NaN;
        Require(
            found.ValueKind == JsonValueKind.Number && found.TryGetDouble(out number) && double.IsFinite(number),
            $"{name} must be a number");
        return number;
    }

    private bool Flag(string name)
    {
        var kind = Find(name)?.ValueKind ?? JsonValueKind.False;
        Require(kind is JsonValueKind.True or JsonValueKind.False, $"{name} must be true or false");
        return kind == JsonValueKind.True;
    }

    private void RequireText(string name, string expected) =>
        Require(
            Find(name) is { } found && IsText(found, expected),
            $"{name} is {(Find(name) is { } other ? other.GetRawText() : "missing")}, expected \"{expected}\"");

    private static bool IsText(JsonElement element, string text) =>
        element.ValueKind == JsonValueKind.String && element.ValueEquals(text);

    private bool IsAbsent(string name) => Find(name) is null;

    /// <summary>Null: absent, or null in the file.</summary>
    private JsonElement? Find(string name) =>
        _root.TryGetProperty(name, out var found) && found.ValueKind != JsonValueKind.Null ? found : null;

    private void Require(bool holds, string message)
    {
        if (!holds)
        {
            throw new UserErrorException($"{_path}: {message}");
        }
    }
}
