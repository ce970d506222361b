using LightningAttn.Modules;
using LightningAttn.Tests.Support;
using TorchSharp.Modules;
using Layer = LightningAttn.Modules.LightningAttention;

namespace LightningAttn.Tests.Modules;

/// <summary>Names and shapes of weights are those of the PyTorch implementations.</summary>
internal sealed class StateDictTests
{
    private DisposeScope? _scope;

    [SetUp]
    public void OpenScope() => _scope = torch.NewDisposeScope();

    [TearDown]
    public void CloseScope() => _scope?.Dispose();

    [TestCase("MiniMax", "norm.weight [48] | out_proj.weight [40, 48] | output_gate.weight [48, 40] | "
        + "qkv_proj.weight [144, 40]")]
    [TestCase("Ling", "dense.weight [40, 48] | g_norm.weight [48] | g_proj.weight [48, 40] | key_layernorm.weight [16] | "
        + "query_key_value.weight [144, 40] | query_layernorm.weight [16]")]
    [TestCase("TransNormer", "k_proj.weight [48, 40] | norm.bias [48] | norm.weight [48] | o_proj.weight [40, 48] | "
        + "output_gate.0.weight [16, 40] | output_gate.1.weight [48, 16] | q_proj.weight [48, 40] | "
        + "v_proj.weight [48, 40]")]
    public void NamesAndShapes(string preset, string expected)
    {
        var layer = new LayerCase(preset, torch.CPU);
        IEnumerable<string> weights = layer.Module.state_dict()
            .Select(static entry => $"{entry.Key} [{string.Join(", ", entry.Value.shape)}]")
            .Order(StringComparer.Ordinal);
        Assert.That(string.Join(" | ", weights), Is.EqualTo(expected));
    }

    [Test]
    public void WeightsLoadAndTheReferencesOwnTablesAreIgnored()
    {
        var source = new LayerCase("MiniMax", torch.CPU);
        Dictionary<string, Tensor> weights = source.Module.state_dict();
        foreach (string table in new[] { "slope_rate", "query_decay", "key_decay", "diagonal_decay" })
        {
            weights[table] = torch.full([LayerCase.Heads, 1, 1], double.NaN);
        }

        using var layer = new Layer(
            LayerCase.Hidden, LayerCase.Heads, LayerCase.LayerIndex, LayerCase.Layers, LayerCase.HeadDim);
        layer.load_state_dict(weights, strict: false);
        Tensor x = source.Input(1, 5);
        Assert.That(Values.Bits(layer.call(x)), Is.EqualTo(Values.Bits(source.Module.call(x))));
    }

    [Test]
    public void SavedWeightsLoad()
    {
        var source = new LayerCase("TransNormer", torch.CPU);
        var target = new LayerCase("TransNormer", torch.CPU);
        using (torch.no_grad())
        {
            foreach (Parameter parameter in target.Module.parameters())
            {
                parameter.zero_();
            }
        }

        using var file = new MemoryStream();
        using (var writer = new BinaryWriter(file, System.Text.Encoding.UTF8, leaveOpen: true))
        {
            source.Module.save(writer);
        }

        file.Position = 0;
        using (var reader = new BinaryReader(file))
        {
            target.Module.load(reader);
        }

        Tensor x = source.Input(1, 5);
        Assert.That(Values.Bits(target.Module.call(x)), Is.EqualTo(Values.Bits(source.Module.call(x))));
    }

    [Test]
    public void AsAPartOfAModelItKeepsItsNamesAndItsRates()
    {
        using var model = new Model();
        Assert.That(model.state_dict().Keys, Has.Member("layers.1.qkv_proj.weight"));
        float[] rates = [.. model.Layers[1].decay_rates];
        model.to(ScalarType.Float64);
        Assert.That(model.call(torch.ones(1, 4, 32, ScalarType.Float64)).dtype, Is.EqualTo(ScalarType.Float64));
        Assert.That(model.Layers[1].decay_rates, Is.EqualTo(rates).AsCollection);
        Assert.That(model.buffers(), Is.Empty);
    }

    [Test]
    public void RatesAreThoseOfTheLayer()
    {
        using var layer = new Layer(48, 3, 2, 5);
        Assert.That(
            layer.decay_rates,
            Is.EqualTo(Functional.build_slope_tensor(3, 2, 5).data<float>().ToArray()).AsCollection);
        using var given = new Layer(48, 3, 2, 5, decay_rates: [0.5f, 0.25f, 0]);
        Assert.That(given.decay_rates, Is.EqualTo(new[] { 0.5f, 0.25f, 0 }).AsCollection);
    }

    private sealed class Model : nn.Module<Tensor, Tensor>
    {
        [TorchSharp.Utils.ComponentName(Name = "layers")]
        private readonly ModuleList<Layer> _layers = torch.nn.ModuleList(new Layer(32, 2, 0, 2), new Layer(32, 2, 1, 2));

        internal Model()
            : base(nameof(Model)) => RegisterComponents();

        internal ModuleList<Layer> Layers => _layers;

        public override Tensor forward(Tensor x) => _layers.Aggregate(x, static (y, layer) => layer.call(y));
    }
}
