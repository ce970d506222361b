using LightningAttn.Interop;
using LightningAttn.Modules;
using TorchSharp;
using TorchSharp.Modules;
using static TorchSharp.torch;

namespace LightningAttn.Benchmarks;

/// <summary>
/// The input of a layer, the q, k, v that its projection could have made of it, and what the operator could have made of
/// these.
/// </summary>
internal sealed class LayerInputs(Tensor x, Tensor qkv, Tensor attended) : IDisposable
{
    /// <summary>[B, N, H D].</summary>
    public Tensor X => x;

    /// <summary>[B, N, 3 H D].</summary>
    public Tensor Qkv => qkv;

    /// <summary>[B, H, N, D].</summary>
    public Tensor Attended => attended;

    public void Dispose()
    {
        x.Dispose();
        qkv.Dispose();
        attended.Dispose();
    }
}

/// <summary>
/// The forward pass of <see cref="Modules.LightningAttention"/>, hidden size H D, beside its parts: the same formula
/// written out in torch's operators around the operator, its projections alone, the operator alone, the gated norm behind
/// it alone. What the layer adds to its projections and the operator is the difference to these.
/// </summary>
internal sealed class LayerWorkload : Workload<LayerInputs>
{
    private const string GatedNorm = "gated norm";

    private static readonly GatedNormOptions s_norm = new(Groups: 1, Eps: 1e-6, Activation.Sigmoid);

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
            new(GatedNorm, inputs => (Kernels.GatedNormForward(inputs.Attended, inputs.X, _weight, s_norm), null))
            {
                IsChecked = false,
            },
        ];
    }

    protected override IReadOnlyList<Variant<LayerInputs>> Variants { get; }

    protected override long BytesPerSet => 6 * Shape.Elements * Type.ElementSize();

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
            randn([Shape.Batch, Shape.Tokens, 3 * hidden], Type, Device).DetachFromDisposeScope(),
            randn([Shape.Batch, Shape.Heads, Shape.Tokens, Shape.HeadDim], Type, Device).DetachFromDisposeScope());
    }

    /// <summary>
    /// The module is compared with the written-out form, which rounds the gate, the norm and their product where the
    /// module rounds once; the tests compare both with float64.
    /// </summary>
    protected override IEnumerable<(Variant<LayerInputs> Variant, Errors Errors)> CheckedErrors()
    {
        using var scope = NewDisposeScope();
        using var inputs = CreateInputs();
        using var mode = no_grad();
        var expected = WrittenOut(inputs.X).to(float64);
        var difference = _layer.call(inputs.X).to(float64) - expected;
        var error = (difference.square().sum() / expected.square().sum()).sqrt().item<double>();
        if (!(error <= CorrectnessGate.Ceiling(Type)))
        {
            throw new GateException(
                $"layer {Shape} {Type}: the module differs by {error:G3} from its formula written out, more than "
                + $"{CorrectnessGate.Ceiling(Type):G3}");
        }

        return [];
    }

    protected override Tensor[] Run(Variant<LayerInputs> variant, LayerInputs inputs)
    {
        using var mode = no_grad();
        return [variant.Forward(inputs).Output];
    }

    /// <summary>Of the gated norm: its two inputs, its weight and its output, once each.</summary>
    protected override Work WorkOf(Variant<LayerInputs> variant) => variant.Name == GatedNorm
        ? new(((3 * Shape.Elements) + (Shape.Heads * (long)Shape.HeadDim)) * Type.ElementSize(), Operations: 0)
        : Work.Forward(Shape, (int)Type.ElementSize());

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
