using System.Text.Json.Nodes;
using CharLm;
using MiniMax.Model;

namespace LightningAttn.Tests.Samples.Decoder;

/// <summary>What the sample reads from config.json, and what it refuses.</summary>
internal sealed class MiniMaxConfigTests
{
    private TemporaryFolder _folder = null!;

    [SetUp]
    public void CreateFolder() => _folder = new TemporaryFolder();

    [TearDown]
    public void DeleteFolder() => _folder.Dispose();

    [Test]
    public void AConfigurationIsRead()
    {
        MiniMaxConfig config = Read(static _ => { });

        Assert.That(config.IsLinear, Is.EqualTo(new[] { true, false, true, true }));
        Assert.That(config.LinearAttention, Is.EqualTo(new ResidualFactors(0.9, 1.4)));
        Assert.That(config.FullAttention, Is.EqualTo(new ResidualFactors(1.25, 0.8)));
        Assert.That(config.Mlp, Is.EqualTo(new ResidualFactors(0.75, 1.6)));
        Assert.That((config.Heads, config.KeyValueHeads, config.HeadDim), Is.EqualTo((8, 2, 16)));
        Assert.That((config.Experts, config.ExpertsPerToken, config.IntermediateSize), Is.EqualTo((4, 2, 24)));
        Assert.That((config.HiddenSize, config.VocabularySize, config.NormEps), Is.EqualTo((32, 96, 1e-3)));
        Assert.That((config.RopeTheta, config.TiedEmbeddings), Is.EqualTo((10000.0, false)));
    }

    [Test]
    public void WhatIsLeftOutHasTransformersDefaults()
    {
        MiniMaxConfig config = Read(static json =>
        {
            foreach (string name in new[] { "num_key_value_heads", "head_dim", "layer_types", "mlp_beta_factor" })
            {
                json.Remove(name);
            }

            json.Remove("rope_parameters");
            json["rope_theta"] = 500;
        });

        Assert.That((config.KeyValueHeads, config.HeadDim, config.RopeTheta), Is.EqualTo((8, 4, 500.0)));
        Assert.That(config.IsLinear, Is.EqualTo(new[] { false, true, false, true }));
        Assert.That(config.Mlp.Beta, Is.EqualTo(1));
    }

    [TestCase("model_type", "\"minimax_m2\"", "model_type is \"minimax_m2\", expected \"minimax\"")]
    [TestCase("model_type", null, "model_type is missing")]
    [TestCase("hidden_act", "\"gelu\"", "hidden_act")]
    [TestCase("sliding_window", "4096", "sliding_window is not supported")]
    [TestCase("rope_parameters", "{\"rope_type\": \"yarn\", \"rope_theta\": 1}", "rope_type is not 'default'")]
    [TestCase("rope_parameters", "{\"rope_type\": \"default\"}", "rope_theta must be")]
    [TestCase("rope_parameters", "{\"rope_theta\": 1, \"partial_rotary_factor\": 0.5}", "partial_rotary_factor")]
    [TestCase("rope_parameters", "3", "rope_parameters is no object")]
    [TestCase("rope_scaling", "{}", "rope_scaling is not supported")]
    [TestCase("rotary_dim", "8", "rotary_dim is not head_dim 16")]
    [TestCase("vocab_size", null, "vocab_size must be a whole number from 1")]
    [TestCase("vocab_size", "0", "vocab_size must be")]
    [TestCase("vocab_size", "2147483648", "vocab_size must be")]
    [TestCase("hidden_size", "\"32\"", "hidden_size must be")]
    [TestCase("num_hidden_layers", "3", "layer_types has 4 entries for 3 layers")]
    [TestCase("num_hidden_layers", "1000000", "more than 10000")]
    [TestCase("layer_types", "7", "layer_types is no list")]
    [TestCase("layer_types", "[\"full_attention\", 1, \"x\", \"x\"]", "1 is neither linear_attention nor")]
    [TestCase("num_key_value_heads", "3", "8 is not a multiple of num_key_value_heads 3")]
    [TestCase("num_experts_per_tok", "5", "5 is more than num_local_experts 4")]
    [TestCase("head_dim", "15", "head_dim 15 is odd")]
    [TestCase("rms_norm_eps", "0", "rms_norm_eps must be a positive number")]
    [TestCase("rms_norm_eps", "\"1\"", "rms_norm_eps must be a number")]
    [TestCase("mlp_alpha_factor", "null", "mlp_alpha_factor must be a number")]
    [TestCase("tie_word_embeddings", "1", "tie_word_embeddings must be true or false")]
    public void WhatItDoesNotComputeIsRefused(string name, string? value, string message) =>
        Assert.That(
            () => Read(json =>
            {
                json.Remove(name);
                if (value is not null)
                {
                    json[name] = JsonNode.Parse(value);
                }
            }),
            Throws.TypeOf<UserErrorException>().With.Message.Contains(message));

    [TestCase("")]
    [TestCase("[]")]
    [TestCase("{\"a\": 1, \"a\": 2}")]
    [TestCase("{\"model_type\": \"\\ud800\"}")]
    public void WhatIsNoConfigurationIsRefused(string text)
    {
        File.WriteAllText(_folder.File("config.json"), text);
        Assert.That(() => ConfigFile.Read(_folder.File("config.json")), Throws.TypeOf<UserErrorException>());
    }

    private MiniMaxConfig Read(Action<JsonObject> change)
    {
        string path = Path.Combine(MiniMaxData.Folder(MiniMaxData.EightHeads), "config.json");
        JsonObject json = JsonNode.Parse(File.ReadAllText(path))!.AsObject();
        change(json);
        File.WriteAllText(_folder.File("config.json"), json.ToJsonString());
        return ConfigFile.Read(_folder.File("config.json"));
    }
}
