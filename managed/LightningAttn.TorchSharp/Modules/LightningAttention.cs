using LightningAttn.Interop;
using TorchSharp;
using TorchSharp.Modules;
using static TorchSharp.torch;

namespace LightningAttn.Modules;

/// <summary>
/// A linear-attention layer around <see cref="Functional.lightning_attention"/>: x [B, N, hidden] to [B, N, hidden],
/// <code>
/// q, k, v = act(qkv(x))                          act: SiLU
/// o = lightning_attention(q, k, v)               by the layer's decay rates
/// y = out(sigmoid(gate(x)) * norm(o))            norm: RMSNorm over all heads at once
/// </code>
/// That is the layer of MiniMax-Text-01 and M1 (arXiv:2501.08313); <see cref="LightningAttentionOptions"/> turn it into
/// those of Ling and Ring 2.5 and of TransNormer.
/// </summary>
/// <remarks>
/// Parameters have the names that the PyTorch implementations give them, so that a state_dict of theirs loads with
/// <c>load_state_dict(weights, strict: false)</c>, which leaves out the decay tables that some of them carry. The decay
/// rates are fp32 whatever the module is cast to: they follow from the layer, and are in no state_dict. Training and
/// evaluation compute the same.
/// </remarks>
public sealed class LightningAttention : nn.Module<Tensor, AttentionState?, Tensor?, Tensor>
{
    private readonly LightningAttentionOptions _options;
    private readonly LayerDecayRates _decayRates;
    private readonly RotaryEmbedding? _rotary;
    private readonly double _scale;

    private readonly nn.Module<Tensor, Tensor>[] _projections; // of q, k and v: one or three
    private readonly nn.Module<Tensor, Tensor>? _queryNorm;
    private readonly nn.Module<Tensor, Tensor>? _keyNorm;
    private readonly nn.Module<Tensor, Tensor> _gate;
    private readonly nn.Module<Tensor, Tensor> _norm;
    private readonly Linear _output;

    /// <summary>A layer with the initial weights of <c>nn.Linear</c>.</summary>
    /// <param name="hidden_size">Channels of x and y.</param>
    /// <param name="num_heads">H, heads of q, k and v.</param>
    /// <param name="layer_idx">The layer, from 0, counted over all layers of the model; it sets the decay rates, see
    /// <see cref="Functional.build_slope_tensor(long, long, long)"/>.</param>
    /// <param name="num_layers">All layers of the model.</param>
    /// <param name="head_dim">D, channels of a head; hidden_size / num_heads where it is left out. On CUDA a multiple
    /// of 8 from 16 to 256.</param>
    /// <param name="options">Which layer; MiniMax-01's where it is left out.</param>
    /// <param name="decay_rates">[H], in nats per token, in place of those that layer_idx gives; for models that count
    /// their layers otherwise, and for a rank of tensor parallelism, which has some of the heads.</param>
    /// <param name="device">Of the weights; the CPU where it is left out.</param>
    /// <param name="dtype">Of the weights; the default type where it is left out.</param>
    /// <exception cref="ArgumentException">A size is below 1, head_dim is left out and num_heads does not divide
    /// hidden_size, layer_idx is not in [0, num_layers), decay_rates has another length or a rate that is negative or
    /// not finite, or the options contradict the sizes or each other.</exception>
    public LightningAttention(
        long hidden_size,
        long num_heads,
        int layer_idx,
        int num_layers,
        long? head_dim = null,
        LightningAttentionOptions? options = null,
        IReadOnlyList<float>? decay_rates = null,
        Device? device = null,
        ScalarType? dtype = null)
        : base(nameof(LightningAttention))
    {
        _options = options ?? LightningAttentionOptions.MiniMax;
        (this.hidden_size, this.num_heads) = (hidden_size, num_heads);
        this.head_dim = ModuleCheck.HeadDim(hidden_size, num_heads, head_dim);
        long rotarySize = ModuleCheck.Options(_options, num_heads, this.head_dim);
        _decayRates = new LayerDecayRates(
            decay_rates is null
                ? Rates(num_heads, layer_idx, num_layers)
                : ModuleCheck.Rates(decay_rates, num_heads));
        _rotary = rotarySize == 0 ? null : new RotaryEmbedding(rotarySize, _options.RopeTheta);
        _scale = _options.Scale ?? 1 / Math.Sqrt(this.head_dim);

        long channels = num_heads * this.head_dim;
        LightningAttentionNames names = _options.Names;
        Linear Project(long from, long to) => nn.Linear(from, to, _options.Bias, device, dtype);

        _projections = _options.Layout == QkvLayout.Separate
            ? [
                Named(names.Query, Project(hidden_size, channels)),
                Named(names.Key, Project(hidden_size, channels)),
                Named(names.Value, Project(hidden_size, channels)),
            ]
            : [Named(names.Qkv, Project(hidden_size, 3 * channels))];
        if (_options.QkNorm)
        {
            _queryNorm = Named(
                names.QueryNorm, new RootMeanSquareNorm(this.head_dim, 1, _options.NormEps, device, dtype));
            _keyNorm = Named(names.KeyNorm, new RootMeanSquareNorm(this.head_dim, 1, _options.NormEps, device, dtype));
        }

        _gate = Named<nn.Module<Tensor, Tensor>>(
            names.Gate,
            _options.LowRankGate
                ? nn.Sequential(Project(hidden_size, this.head_dim), Project(this.head_dim, channels))
                : Project(hidden_size, channels));
        _norm = Named<nn.Module<Tensor, Tensor>>(
            names.Norm,
            _options.Norm == OutputNorm.LayerNorm
                ? nn.LayerNorm(channels, _options.NormEps, device: device, dtype: dtype)
                : new RootMeanSquareNorm(channels, _options.NormGroups, _options.NormEps, device, dtype));
        _output = Named(names.Output, Project(channels, hidden_size));
        foreach (Parameter parameter in parameters())
        {
            parameter.DetachFromDisposeScope();
        }
    }

    /// <summary>Channels of x and y.</summary>
    public long hidden_size { get; }

    /// <summary>H.</summary>
    public long num_heads { get; }

    /// <summary>D.</summary>
    public long head_dim { get; }

    /// <summary>Decay rates of the heads, [H], in nats per token.</summary>
    public IReadOnlyList<float> decay_rates => _decayRates.Values;

    internal bool HasRotary => _rotary is not null;

    /// <summary>The state of sequences that have had no token yet, where the weights are.</summary>
    /// <param name="batch_size">B, at least 1.</param>
    /// <exception cref="ArgumentOutOfRangeException">batch_size is below 1.</exception>
    public LightningAttentionState new_state(long batch_size)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(batch_size, 1);
        Parameter weight = _output.weight!;
        return new LightningAttentionState(
            batch_size,
            num_heads,
            head_dim,
            Kernels.StateType(_options.OperatorType ?? weight.dtype),
            weight.device);
    }

    /// <summary>The layer on whole sequences, nothing kept: training.</summary>
    /// <inheritdoc cref="forward"/>
    public Tensor call(Tensor x) => call(x, null, null);

    /// <summary>The layer on the next tokens of sequences without padding.</summary>
    /// <inheritdoc cref="forward"/>
    public Tensor call(Tensor x, AttentionState? state) => call(x, state, null);

    /// <summary>The layer on the next tokens of its sequences.</summary>
    /// <param name="x">[B, N, hidden_size] of the weights' type and device.</param>
    /// <param name="state">What came before x, moved on by N tokens: that of <see cref="new_state"/>,
    /// <see cref="PackedSequences"/> or <see cref="PooledSequences"/>. Null: nothing came before, and the end is not
    /// kept. One token (N = 1) with a state takes the decoding kernel.</param>
    /// <param name="padding_mask">[B, N], of any type: 0 for padding, whose q, k and v are then zeros. Padding is to
    /// lie at the left of a sequence, where it changes nothing; at its right it leaves the outputs right, but the state
    /// decays on it. So with a state it is an error there on the CPU; on CUDA, where looking would synchronise, it is
    /// not. Null: none.</param>
    /// <returns>[B, N, hidden_size].</returns>
    /// <exception cref="ArgumentException">x, the state or the mask has another rank, size, type or device than it
    /// must have, or the mask has padding behind a token of a sequence that has a state (CPU).</exception>
    /// <exception cref="InvalidOperationException">Packed sequences have a pool, and gradients are recorded.</exception>
    /// <exception cref="ObjectDisposedException">A tensor or the state has been disposed.</exception>
    /// <exception cref="NotSupportedException">The operator does not support the device, type or head_dim.</exception>
    /// <exception cref="DllNotFoundException">The native library is missing.</exception>
    /// <exception cref="LightningAttnException">The CUDA driver reported an error.</exception>
    public override Tensor forward(Tensor x, AttentionState? state, Tensor? padding_mask)
    {
        ModuleCheck.Input(x, hidden_size);
        state ??= WholeSequences.Instance;
        state.Check(x, padding_mask, this);
        if (x.size(1) == 0 && state is not PackedSequences)
        {
            return zeros_like(x); // empty sequences of a pool may have slots to clear
        }

        using DisposeScope scope = NewDisposeScope();
        (Tensor q, Tensor k, Tensor v) = Projections(x, padding_mask);
        if (_queryNorm is not null)
        {
            (q, k) = (_queryNorm.call(q), _keyNorm!.call(k));
        }

        Tensor? positions = null;
        if (_rotary is not null)
        {
            positions = state.Positions(x, padding_mask);
            (q, k) = _rotary.Turn(q, k, positions);
        }

        if (_options.OperatorType is { } type)
        {
            (q, k, v) = (q.to(type), k.to(type), v.to(type));
        }

        (Tensor attended, Tensor gate) = AttendAndGate(x, q, k, v, state);
        state.Advance(x.size(1), positions);
        return _output.call(GatedNorm(attended, gate)).MoveToOuterDisposeScope();
    }

    /// <inheritdoc/>
    protected override void Dispose(bool disposing)
    {
        if (disposing)
        {
            _decayRates.Dispose();
        }

        base.Dispose(disposing);
    }

    private static float[] Rates(long heads, int layer, int layers)
    {
        using Tensor rates = Functional.build_slope_tensor(heads, layer, layers);
        return rates.data<float>().ToArray();
    }

    private T Named<T>(string name, T module)
        where T : nn.Module
    {
        register_module(name, module);
        return module;
    }

    /// <summary>q, k and v [B, H, N, D], views that the operator reads in place.</summary>
    private (Tensor Q, Tensor K, Tensor V) Projections(Tensor x, Tensor? mask)
    {
        Tensor Project(nn.Module<Tensor, Tensor> projection)
        {
            Tensor values = Activate(projection.call(x), _options.QkvActivation);
            if (_queryNorm is null && _rotary is null && _options.OperatorType is { } type)
            {
                values = values.to(type); // at once, not q, k and v one by one
            }

            return mask is null ? values : values * mask.ne(0).to(values.dtype).unsqueeze(-1);
        }

        if (_options.Layout == QkvLayout.Separate)
        {
            Tensor Head(int i) => Project(_projections[i]).unflatten(2, [num_heads, head_dim]).transpose(1, 2);
            return (Head(0), Head(1), Head(2));
        }

        Tensor qkv = Project(_projections[0]);
        if (_options.Layout == QkvLayout.Interleaved)
        {
            Tensor[] thirds = qkv.unflatten(2, [num_heads, 3 * head_dim]).transpose(1, 2).chunk(3, dim: -1);
            return (thirds[0], thirds[1], thirds[2]);
        }

        Tensor stacked = qkv.unflatten(2, [3, num_heads, head_dim]).transpose(1, 3); // [B, H, 3, N, D]
        return (stacked.select(2, 0), stacked.select(2, 1), stacked.select(2, 2));
    }

    /// <summary>The operator's output [B, H, N, E], and the gate's projection [B, N, H E].</summary>
    private (Tensor Attended, Tensor Gate) AttendAndGate(Tensor x, Tensor q, Tensor k, Tensor v, AttentionState state)
    {
        Tensor Attend() => state.Attend(q, k, v, _decayRates.For(q), _scale).to(x.dtype);

        bool asks = IdleMultiprocessors.AreFreeForLong(q) && SideStream.IsSupported(x);
        int multiprocessors = asks ? SideStream.Multiprocessors(x) : 0;
        if (state is PackedSequences || !IdleMultiprocessors.AreMany(q, multiprocessors) || Records(q))
        {
            return (Attend(), _gate.call(x));
        }

        using SideStream side = SideStream.Fork(x);
        Tensor attended = Attend(); // first, so that it has the multiprocessors that it needs
        int target = IdleMultiprocessors.ForProjection(q, _gate, multiprocessors);
        return (attended, side.Run(() => _gate.call(x), target));
    }

    /// <summary>Whether gradients are recorded, whose computation would follow on the same streams.</summary>
    private bool Records(Tensor q) =>
        is_grad_enabled() && (q.requires_grad || _gate.parameters().Any(weight => weight.requires_grad));

    /// <summary>act(gate) * norm(attended) [B, N, H E], for attended [B, H, N, E].</summary>
    private Tensor GatedNorm(Tensor attended, Tensor gate) =>
        _norm is RootMeanSquareNorm norm && norm.CanGate(attended, gate)
            ? norm.Gated(attended, gate, _options.GateActivation)
            : Activate(gate, _options.GateActivation) * _norm.call(attended.transpose(1, 2).flatten(2));

    /// <summary>In place where nothing is recorded: x is a projection's output, which nobody else has.</summary>
    private static Tensor Activate(Tensor x, Activation activation)
    {
        if (activation == Activation.Identity)
        {
            return x;
        }

        if (x.device_type != DeviceType.CUDA)
        {
            return activation == Activation.SiLU
                ? nn.functional.silu(x, inplace: !x.requires_grad)
                : x.requires_grad ? x.sigmoid() : x.sigmoid_();
        }

        // In half of torch's time or less. The same kernel with gradients, so that both compute the same.
        x = x.contiguous();
        if (x.requires_grad)
        {
            return Autograd.ActivationFunction.Record(x, activation);
        }

        Kernels.ActivateInPlace(x, activation);
        return x;
    }
}
