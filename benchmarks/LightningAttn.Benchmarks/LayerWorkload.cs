using LightningAttn.Modules;
using TorchSharp;
using TorchSharp.Modules;
using static TorchSharp.torch;

namespace LightningAttn.Benchmarks;

/// <summary>The input of a layer and the q, k, v that its projection could have made of it.</summary>
internal sealed class LayerInputs(Tensor x, Tensor qkv) : IDisposable
{
    /// <summary>[B, N, H D].</summary>
    public Tensor X => x;

    /// <summary>[B, N, 3 H D].</summary>
    public Tensor Qkv => qkv;

    public void Dispose()
    {
        x.Dispose();
        qkv.Dispose();
    }
}

/// <summary>
/// The forward pass of <see cref="Modules.LightningAttention"/>, hidden size H D, beside its parts: the same formula
/// written out around the operator, its projections alone, the operator alone. What the module adds is the difference of
/// the first two; what the layer adds to its projections and the operator, that to the last two.
/// </summary>
internal sealed class LayerWorkload : Workload<LayerInputs>
{
    private readonly Modules.LightningAttention _layer;
    private readonly Linear _qkv;
    private readonly Linear _gate;
    private readonly Linear _output;
    private readonly Tensor _weight;
    private readonly Tensor _rates;

    public LayerWorkload(Shape shape, ScalarType type, Device device)
        : base("layer", shape, type, device)
    {
        long hidden = (long)shape.Heads * shape.HeadDim;
        _layer = new(hidden, shape.Heads, 0, 2, shape.HeadDim, device: device, dtype: type);
        Dictionary<string, nn.Module> parts = _layer.named_children().ToDictionary(part => part.name, part => part.module);
        (_qkv, _gate, _output) = ((Linear)parts["qkv_proj"], (Linear)parts["output_gate"], (Linear)parts["out_proj"]);
        _weight = parts["norm"].parameters().Single();
        using var rates = Functional.build_slope_tensor(shape.Heads, 0, 2);
        _rates = rates.to(device, copy: true).DetachFromDisposeScope();
        Variants =
        [
            new("module", inputs => (_layer.call(inputs.X), null)) { IsChecked = false },
            new("written out", inputs => (WrittenOut(inputs.X), null)) { IsChecked = false },
            new("projections", inputs => (Projections(inputs.X), null)) { IsChecked = false },
            new("operator", inputs => (Operator(inputs.Qkv), null)) { IsChecked = false },
        ];
    }

    protected override IReadOnlyList<Variant<LayerInputs>> Variants { get; }

    protected override long BytesPerSet => 5 * Shape.Elements * Type.ElementSize();

    public override void Dispose()
    {
        _layer.Dispose();
        _rates.Dispose();
    }

    protected override LayerInputs CreateInputs()
    {
        long hidden = (long)Shape.Heads * Shape.HeadDim;
        return new(
            randn([Shape.Batch, Shape.Tokens, hidden], Type, Device).DetachFromDisposeScope(),
            randn([Shape.Batch, Shape.Tokens, 3 * hidden], Type, Device).DetachFromDisposeScope());
    }

    /// <summary>The module is compared with the written-out form, bit for bit; both with float64 in the tests.</summary>
    protected override IEnumerable<(Variant<LayerInputs> Variant, Errors Errors)> CheckedErrors()
    {
        using var scope = NewDisposeScope();
        using var inputs = CreateInputs();
        using var mode = no_grad();
        if (!_layer.call(inputs.X).eq(WrittenOut(inputs.X)).all().item<bool>())
        {
            throw new GateException($"layer {Shape} {Type}: the module does not give what its formula gives");
        }

        return [];
    }

    protected override Tensor[] Run(Variant<LayerInputs> variant, LayerInputs inputs)
    {
        using var mode = no_grad();
        return [variant.Forward(inputs).Output];
    }

    protected override Work WorkOf(Variant<LayerInputs> variant) => Work.Forward(Shape, (int)Type.ElementSize());

    protected override Limits? LimitsOf(double floorMicroseconds) => null;

    protected override long? ExtraBytesOf(Variant<LayerInputs> variant, LayerInputs inputs, Tensor[] results) => null;

    private Tensor WrittenOut(Tensor x)
    {
        using var scope = NewDisposeScope();
        var attended = Operator(nn.functional.silu(_qkv.call(x))).transpose(1, 2).flatten(2).to(float32);
        var inverse = attended.square().mean([-1], keepdim: true).add_(1e-6).rsqrt_();
        var normalized = (attended * inverse * _weight.to(float32)).to(Type);
        return _output.call(_gate.call(x).sigmoid() * normalized).MoveToOuterDisposeScope();
    }

    private Tensor Projections(Tensor x)
    {
        using var scope = NewDisposeScope();
        using var qkv = _qkv.call(x);
        return _output.call(_gate.call(x)).MoveToOuterDisposeScope();
    }

    private Tensor Operator(Tensor qkv)
    {
        using var scope = NewDisposeScope();
        var thirds = qkv.unflatten(2, [Shape.Heads, 3 * Shape.HeadDim]).transpose(1, 2).chunk(3, dim: -1);
        var (output, _) = Functional.lightning_attention(
            thirds[0], thirds[1], thirds[2], _rates, output_block_states: false);
        return output.MoveToOuterDisposeScope();
    }
}
