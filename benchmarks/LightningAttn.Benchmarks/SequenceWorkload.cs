using LightningAttn.Interop;
using TorchSharp;
using static TorchSharp.torch;

namespace LightningAttn.Benchmarks;

/// <summary>What of <see cref="Functional.lightning_attention"/> is timed.</summary>
internal enum Pass
{
    Forward,
    ForwardBackward,

    /// <summary>Of a graph that the forward pass has recorded before.</summary>
    Backward,
}

/// <summary><see cref="Functional.lightning_attention"/>, one pass or both.</summary>
internal sealed class SequenceWorkload : Workload<SequenceInputs>
{
    private const int BlockSize = 256;
    private const string Ours = "ours";
    private static readonly int[] s_torchChunks = [64, 128, 256];

    private readonly Pass _pass;
    private readonly Dictionary<SequenceInputs, Recorded> _recorded = [];
    private readonly List<Variant<SequenceInputs>> _variants = [];
    private readonly List<ChunkedTorch> _torch = [];

    public SequenceWorkload(Shape shape, ScalarType type, Device device, bool compare, Pass pass, CudaPath path)
        : base(NameOf(pass), shape, type, device)
    {
        _pass = pass;
        AddOurs(path);
        if (compare)
        {
            AddBaselines();
        }
    }

    protected override IReadOnlyList<Variant<SequenceInputs>> Variants => _variants;

    // q, k, v and what is written for them.
    protected override long BytesPerSet => 4 * Shape.Elements * Type.ElementSize();

    private bool HasGradients => _pass != Pass.Forward;

    public override void Dispose()
    {
        foreach (var recorded in _recorded.Values)
        {
            recorded.Dispose();
        }

        _torch.ForEach(torch => torch.Dispose());
    }

    protected override SequenceInputs CreateInputs()
    {
        var inputs = new SequenceInputs(Shape, Type, Device);
        inputs.RequireGradients(HasGradients);
        return inputs;
    }

    protected override IEnumerable<(Variant<SequenceInputs> Variant, Errors Errors)> CheckedErrors()
    {
        if (!_variants.Exists(variant => variant.IsChecked))
        {
            yield break;
        }

        using var inputs = CreateInputs();
        var truth = CorrectnessGate.TruthOf(inputs, HasGradients);
        foreach (var variant in _variants.Where(variant => variant.IsChecked))
        {
            yield return (variant, ErrorsOf(variant, inputs, truth));
        }
    }

    protected override Tensor[] Run(Variant<SequenceInputs> variant, SequenceInputs inputs)
    {
        if (_pass == Pass.Backward)
        {
            return [.. autograd.grad(
                [RecordedBy(variant, inputs)], [inputs.Q, inputs.K, inputs.V], [inputs.GradOutput], retain_graph: true)];
        }

        var (output, state) = variant.Forward(inputs);
        Tensor[] results = state is null ? [output] : [output, state];
        return HasGradients
            ? [.. results, .. autograd.grad([output], [inputs.Q, inputs.K, inputs.V], [inputs.GradOutput])]
            : results;
    }

    protected override Work WorkOf(Variant<SequenceInputs> variant)
    {
        var elementBytes = (int)Type.ElementSize();
        return _pass switch
        {
            Pass.Forward => Work.Forward(Shape, elementBytes, variant.BlockStates),
            Pass.Backward => Work.Backward(Shape, elementBytes),
            _ => Work.ForwardBackward(Shape, elementBytes, variant.BlockStates),
        };
    }

    protected override Limits? LimitsOf(double floorMicroseconds) =>
        _pass switch
        {
            Pass.Forward => Limits.Forward(floorMicroseconds),
            Pass.Backward => null,
            _ => Limits.ForwardBackward(floorMicroseconds),
        };

    protected override long? ExtraBytesOf(
        Variant<SequenceInputs> variant, SequenceInputs inputs, Tensor[] results) =>
        _pass == Pass.Backward ? null : Workspace.BytesOf(inputs, results, BlockSize, variant.Path);

    private static string NameOf(Pass pass) =>
        pass switch
        {
            Pass.Forward => "forward",
            Pass.Backward => "backward",
            _ => "forward + backward",
        };

    /// <summary>The output of a variant's forward pass, with its graph; the same one until the variant changes.</summary>
    private Tensor RecordedBy(Variant<SequenceInputs> variant, SequenceInputs inputs)
    {
        if (_recorded.TryGetValue(inputs, out var recorded) && recorded.Variant == variant)
        {
            return recorded.Output;
        }

        recorded?.Dispose();
        var (output, state) = variant.Forward(inputs);
        state?.Dispose();
        _recorded[inputs] = new Recorded(variant, output.DetachFromDisposeScope());
        return output;
    }

    /// <summary>The path that was asked for and, where that is another one, the general path.</summary>
    private void AddOurs(CudaPath path)
    {
        var asked = KernelsOf(path);
        AddOurs(Ours, path, asked, blockStates: false);
        if (_pass != Pass.Backward)
        {
            AddOurs($"{Ours} + states", path, asked, blockStates: true);
        }

        var general = KernelsOf(CudaPath.General);
        if (general != asked)
        {
            AddOurs("general", CudaPath.General, general, blockStates: false);
        }
    }

    private void AddOurs(string name, CudaPath path, string kernel, bool blockStates) =>
        _variants.Add(new(name, inputs => Attend(inputs, path, blockStates))
        {
            Kernel = kernel,
            Path = path,
            IsJudged = name == Ours,
            IsChecked = _pass != Pass.Backward, // with the forward pass
            BlockStates = blockStates ? ((Shape.Tokens + BlockSize - 1) / BlockSize) + 1 : 0,
        });

    private string KernelsOf(CudaPath path)
    {
        Kernels.CudaPath = path;
        var forward = KernelOf(Operation.Forward);
        return HasGradients ? $"{forward}, {KernelOf(Operation.Backward)}" : forward;
    }

    private string KernelOf(Operation operation) =>
        Native.Describe(operation, Type, Device, Shape.HeadDim, Shape.HeadDim);

    private void AddBaselines()
    {
        // In fp32 libtorch has no flash kernel, and the scores of long sequences fill the memory.
        if (Device.type == DeviceType.CUDA && Type != float32)
        {
            _variants.Add(new("softmax SDPA", Softmax) { IsChecked = false });
        }

        foreach (var chunk in s_torchChunks.Where(chunk => ChunkedTorch.Fits(Shape.Tokens, chunk)))
        {
            var torch = new ChunkedTorch(Shape.Heads, chunk, Type, Device);
            _torch.Add(torch);
            _variants.Add(new("torch ops", inputs => torch.Forward(inputs.Q, inputs.K, inputs.V))
            {
                Chunk = chunk,
                IsChecked = _pass != Pass.Backward,
            });
        }
    }

    private static (Tensor Output, Tensor? State) Attend(SequenceInputs inputs, CudaPath path, bool blockStates)
    {
        Kernels.CudaPath = path;
        return Functional.lightning_attention(
            inputs.Q, inputs.K, inputs.V, inputs.DecayRates, BlockSize, output_block_states: blockStates);
    }

    private static (Tensor Output, Tensor? State) Softmax(SequenceInputs inputs) =>
        (nn.functional.scaled_dot_product_attention(inputs.Q, inputs.K, inputs.V, is_casual: true), null);

    private Errors ErrorsOf(Variant<SequenceInputs> variant, SequenceInputs inputs, CorrectnessGate.Truth truth)
    {
        using var scope = NewDisposeScope();
        var (output, state) = variant.Forward(inputs);
        var final = state!.dim() == 5 ? state.select(2, -1) : state;
        if (!HasGradients)
        {
            return CorrectnessGate.ErrorsOf(output, final, null, truth);
        }

        // Not autograd.grad, which ends the process where a backward pass fails.
        output.backward([inputs.GradOutput]);
        var errors = CorrectnessGate.ErrorsOf(output, final, [inputs.Q.grad!, inputs.K.grad!, inputs.V.grad!], truth);
        inputs.Q.grad = inputs.K.grad = inputs.V.grad = null;
        return errors;
    }

    private sealed record Recorded(Variant<SequenceInputs> Variant, Tensor Output) : IDisposable
    {
        public void Dispose() => Output.Dispose();
    }
}
