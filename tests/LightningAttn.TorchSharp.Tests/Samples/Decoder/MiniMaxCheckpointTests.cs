using CharLm;
using LightningAttn.Tests.Support;
using MiniMax.Checkpoints;
using MiniMax.Model;
using MiniMax.Safetensors;

namespace LightningAttn.Tests.Samples.Decoder;

/// <summary>How the sample finds a model's weights, and what it says where they are not those.</summary>
internal sealed class MiniMaxCheckpointTests
{
    private const string GateUp = "model.layers.1.mlp.experts.gate_up_proj";
    private const string Down = "model.layers.1.mlp.experts.down_proj";

    private TemporaryFolder _folder = null!;

    [SetUp]
    public void CreateFolder()
    {
        _folder = new TemporaryFolder();
        File.Copy(
            Path.Combine(MiniMaxData.Folder(MiniMaxData.EightHeads), "config.json"), _folder.File("config.json"));
    }

    [TearDown]
    public void DeleteFolder() => _folder.Dispose();

    [Test]
    public void DecayRatesAreThoseOfTheCheckpoint(
        [Values(MiniMaxData.EightHeads, MiniMaxData.SixHeads)] string checkpoint)
    {
        using MiniMaxModel model = MiniMaxCheckpoint.Load(MiniMaxData.Folder(checkpoint));
        foreach (RawTensor theirs in SafetensorsBytes.ReadFolder(MiniMaxData.Folder(checkpoint))
            .Where(static tensor => tensor.Name.EndsWith(".slope_rate", StringComparison.Ordinal)))
        {
            int layer = int.Parse(theirs.Name.Split('.')[2], System.Globalization.CultureInfo.InvariantCulture);
            float[] ours = DecaySlopes.Of(model.Config, layer);
            for (int head = 0; head < ours.Length; head++)
            {
                float rate = BitConverter.ToSingle(theirs.Data, 4 * head);
                Assert.That(ours[head], Is.EqualTo(rate).Within(1e-6 * rate), $"{theirs.Name}, head {head}");
            }
        }
    }

    /// <summary>Where the number of heads is a power of two they are ALiBi's but for 1e-5; elsewhere not.</summary>
    [TestCase(MiniMaxData.EightHeads, 0, 0, 2e-5)]
    [TestCase(MiniMaxData.EightHeads, 2, 0, 2e-5)]
    [TestCase(MiniMaxData.SixHeads, 1, 0.05, 0.5)]
    public void DecayRatesAreNotTheSlopesOfALiBi(string checkpoint, int layer, double least, double most)
    {
        MiniMaxConfig config = ConfigFile.Read(Path.Combine(MiniMaxData.Folder(checkpoint), "config.json"));
        using Tensor slopes = Functional.build_slope_tensor(config.Heads, layer, config.Layers);
        double difference = DecaySlopes.Of(config, layer)
            .Zip(slopes.data<float>().ToArray(), static (rate, slope) => Math.Abs(rate - slope)).Max();
        Assert.That(difference, Is.InRange(least, most));
    }

    [Test]
    public void ExpertsMayBePackedOrNot()
    {
        List<RawTensor> packed = ReadEightHeads();
        Save([.. packed.SelectMany(Unpacked)]);
        using MiniMaxModel fromUnpacked = MiniMaxCheckpoint.Load(_folder.Path);
        using MiniMaxModel fromPacked = MiniMaxCheckpoint.Load(MiniMaxData.Folder(MiniMaxData.EightHeads));
        foreach ((string name, TorchSharp.Modules.Parameter weight) in fromPacked.named_parameters())
        {
            Assert.That(
                Values.Bits(fromUnpacked.get_parameter(name)!), Is.EqualTo(Values.Bits(weight)), name);
        }
    }

    [Test]
    public void OtherTypesAreConverted()
    {
        List<RawTensor> tensors = ReadEightHeads();
        RawTensor norm = tensors.Single(static tensor => tensor.Name == "model.norm.weight");
        byte[] upper = [.. norm.Data.Chunk(4).SelectMany(static bytes => bytes[2..])];
        Save([.. tensors.Where(tensor => tensor != norm), norm with { Type = "BF16", Data = upper }]);
        using MiniMaxModel model = MiniMaxCheckpoint.Load(_folder.Path);
        byte[] expected = [.. norm.Data.Chunk(4).SelectMany(static bytes => new byte[] { 0, 0, bytes[2], bytes[3] })];
        Assert.That(Values.Bits(model.get_parameter(norm.Name)!), Is.EqualTo(expected));
    }

    [Test]
    public void WeightsThatAreNotTheModelsAreListed()
    {
        List<RawTensor> tensors = ReadEightHeads();
        RawTensor query = tensors.Single(static tensor => tensor.Name == "model.layers.1.self_attn.q_proj.weight");
        tensors.Remove(query);
        tensors.RemoveAll(static tensor => tensor.Name == "lm_head.weight");
        tensors.Add(query with { Name = "model.layers.1.self_attn.query.weight" });
        int norm = tensors.FindIndex(static tensor => tensor.Name == "model.norm.weight");
        tensors[norm] = tensors[norm] with { Shape = [4, 8] };
        Save([.. tensors]);

        Refuse(
            "missing: model.layers.1.self_attn.q_proj.weight, lm_head.weight;",
            "not expected: model.layers.1.self_attn.query.weight",
            "of another shape: model.norm.weight is [4, 8], expected [32]");
    }

    [Test]
    public void AnExpertThatIsMissingOrGivenTwiceIsNamed()
    {
        List<RawTensor> tensors = ReadEightHeads();
        List<RawTensor> unpacked = [.. tensors.SelectMany(Unpacked)];
        Save([.. unpacked.Where(static tensor =>
            tensor.Name != "model.layers.1.block_sparse_moe.experts.3.w1.weight")]);
        Refuse($"missing: {GateUp}");

        Save(
        [
            .. tensors,
            unpacked.Single(static tensor => tensor.Name == "model.layers.0.block_sparse_moe.experts.1.w2.weight"),
        ]);
        Refuse("given twice: model.layers.0.mlp.experts.down_proj");

        const string Other = "model.layers.1.mlp.experts.3.w3.weight"; // in place of w1
        Save([.. unpacked.Select(static tensor =>
            tensor.Name == "model.layers.1.block_sparse_moe.experts.3.w1.weight"
                ? tensor with { Name = Other }
                : tensor)]);
        Refuse($"missing: {GateUp}", "given twice: model.layers.1.block_sparse_moe.experts.3.w3.weight");
    }

    [Test]
    public void LongListsAreCut()
    {
        Save([]);
        Refuse("missing: ", " more");
    }

    [Test]
    public void IndexAndShardsMustAgree()
    {
        byte[] shard = SafetensorsBytes.Write([new RawTensor("a", "U8", [1], [1])]);
        _folder.Write("one.safetensors", shard);
        _folder.Write("two.safetensors", SafetensorsBytes.Write([new RawTensor("b", "U8", [1], [1])]));
        _folder.Write("three.safetensors", shard);
        Index("{\"weight_map\": {\"a\": \"one.safetensors\", \"b\": \"two.safetensors\"}}");
        using (SafetensorsFolder read = SafetensorsFolder.Open(_folder.Path))
        {
            Assert.That(read.Tensors.Select(static tensor => tensor.Name), Is.EquivalentTo(new[] { "a", "b" }));
            Assert.That(read.Files, Is.EqualTo(2));
        }

        Refused("{\"weight_map\": {\"a\": \"none.safetensors\"}}", "none.safetensors: cannot be read");
        Refused("{\"weight_map\": {\"b\": \"one.safetensors\"}}", "says that tensor 'b' is in one.safetensors");
        Refused(
            "{\"weight_map\": {\"a\": \"two.safetensors\", \"b\": \"one.safetensors\"}}", "tensor 'a' is in two");
        Refused("{\"weight_map\": {\"a\": \"one.safetensors\", \"c\": \"one.safetensors\"}}", "'c' is in one");
        Refused("{\"weight_map\": {\"a\": \"one.safetensors\", \"b\": \"three.safetensors\"}}", "tensor 'a' is in");
        Refused("{\"weight_map\": {\"a\": \"../one.safetensors\"}}", "no name of a shard");
        Refused("{\"weight_map\": {\"a\": \"/etc/passwd\"}}", "no name of a shard");
        Refused("{\"weight_map\": {\"a\": 1}}", "1 is no name of a shard");
        Refused("{\"weight_map\": {\"a\": \"\\ud800.safetensors\"}}", "cannot be read");
        Refused("{\"weight_map\": []}", "has no object weight_map");
        Refused("[]", "has no object weight_map");
        Refused("{\"weight_map\": {\"a\": \"one.safetensors\", \"a\": \"one.safetensors\"}}", "cannot be read");
        Refused("{", "cannot be read");

        void Index(string json) =>
            File.WriteAllText(_folder.File("model.safetensors.index.json"), json);

        void Refused(string json, string message)
        {
            Index(json);
            Assert.That(
                () => SafetensorsFolder.Open(_folder.Path),
                Throws.TypeOf<SafetensorsException>().With.Message.Contains(message),
                json);
        }
    }

    private static List<RawTensor> ReadEightHeads() =>
        SafetensorsBytes.ReadFolder(MiniMaxData.Folder(MiniMaxData.EightHeads));

    /// <summary>The experts' matrices of a packed tensor; any other tensor as it is.</summary>
    private static IEnumerable<RawTensor> Unpacked(RawTensor tensor)
    {
        bool gateUp = tensor.Name.EndsWith(GateUp[^13..], StringComparison.Ordinal);
        if (!gateUp && !tensor.Name.EndsWith(Down[^10..], StringComparison.Ordinal))
        {
            return [tensor];
        }

        string prefix = tensor.Name[..tensor.Name.LastIndexOf('.')]
            .Replace(".mlp.", ".block_sparse_moe.", StringComparison.Ordinal);
        long rows = gateUp ? tensor.Shape[1] / 2 : tensor.Shape[1];
        return tensor.Data.Chunk((int)(4 * rows * tensor.Shape[2])).Select((data, i) => new RawTensor(
            gateUp ? $"{prefix}.{i / 2}.{(i % 2 == 0 ? "w1" : "w3")}.weight" : $"{prefix}.{i}.w2.weight",
            "F32",
            [rows, tensor.Shape[2]],
            data));
    }

    private void Save(RawTensor[] tensors) => _folder.Write("model.safetensors", SafetensorsBytes.Write(tensors));

    private void Refuse(params string[] messages)
    {
        string said = Assert.Throws<UserErrorException>(() => MiniMaxCheckpoint.Load(_folder.Path))!.Message;
        foreach (string message in messages)
        {
            Assert.That(said, Does.Contain(message));
        }
    }
}
