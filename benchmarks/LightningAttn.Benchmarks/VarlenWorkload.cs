using LightningAttn.Interop;
using TorchSharp;
using static TorchSharp.torch;

namespace LightningAttn.Benchmarks;

/// <summary>
/// <see cref="Functional.lightning_attention_varlen"/> on a pool of states, beside one sequence of as many tokens.
/// </summary>
internal sealed class VarlenWorkload : Workload<VarlenInputs>
{
    private const string OneSequence = "one sequence";

    private readonly int _sequences;
    private readonly CudaPath _path;

    /// <param name="shape">B: sequences, N: tokens of all of them.</param>
    /// <param name="type">Of q, k and v.</param>
    /// <param name="device">Where to compute.</param>
    /// <param name="path">Of our kernels.</param>
    public VarlenWorkload(Shape shape, ScalarType type, Device device, CudaPath path)
        : base($"varlen, {shape.Batch} sequences", shape with { Batch = 1 }, type, device)
    {
        (_sequences, _path) = (shape.Batch, path);
        Variants =
        [
            new(OneSequence, AttendWhole) { IsChecked = false },
            .. Enum.GetValues<Lengths>().SelectMany(VariantsOf),
        ];
    }

    protected override IReadOnlyList<Variant<VarlenInputs>> Variants { get; }

    protected override long BytesPerSet => (4 * Shape.Elements * Type.ElementSize()) + PoolBytes;

    private long PoolBytes => _sequences * Shape.StateBytes;

    /// <summary>The limit of a packed batch is 1.3 of the time of one sequence, and 10 us.</summary>
    public override IEnumerable<Row> Measure(Timer timer)
    {
        Row? whole = null;
        foreach (var row in base.Measure(timer))
        {
            whole ??= row;
            yield return row.Limits is null
                ? row
                : row with { Limits = Limits.Varlen(whole.Time.Microseconds, row.FloorMicroseconds) };
        }
    }

    protected override VarlenInputs CreateInputs() => new(Shape, _sequences, Type, Device);

    protected override IEnumerable<(Variant<VarlenInputs> Variant, Errors Errors)> CheckedErrors()
    {
        using var inputs = CreateInputs();
        using var before = inputs.Pool.clone();
        foreach (var variant in Variants.Where(variant => variant.IsChecked))
        {
            using var scope = NewDisposeScope();
            inputs.Pool.copy_(before);
            var (output, _) = variant.Forward(inputs);
            yield return (variant, CorrectnessGate.ErrorsOfVarlen(
                inputs, LengthsOf(variant), IsFresh(variant) ? null : before, output));
        }
    }

    protected override Tensor[] Run(Variant<VarlenInputs> variant, VarlenInputs inputs)
    {
        var (output, state) = variant.Forward(inputs);
        return state is null ? [output] : [output, state];
    }

    protected override Work WorkOf(Variant<VarlenInputs> variant)
    {
        var work = Work.Forward(Shape, (int)Type.ElementSize());
        var passes = variant.Name == OneSequence ? 0 : IsFresh(variant) ? 1 : 2;
        return work with { Bytes = work.Bytes + (passes * PoolBytes) };
    }

    // Of a single sequence; Measure() makes it that of a packed batch.
    protected override Limits? LimitsOf(double floorMicroseconds) => Limits.Forward(floorMicroseconds);

    protected override long? ExtraBytesOf(Variant<VarlenInputs> variant, VarlenInputs inputs, Tensor[] results) => null;

    private static bool IsFresh(Variant<VarlenInputs> variant) => variant.Name.EndsWith("fresh", StringComparison.Ordinal);

    private static Lengths LengthsOf(Variant<VarlenInputs> variant) =>
        Enum.Parse<Lengths>(variant.Name.Split(',')[0], ignoreCase: true);

    private IEnumerable<Variant<VarlenInputs>> VariantsOf(Lengths lengths)
    {
        var name = lengths.ToString().ToLowerInvariant();
        yield return new(name, inputs => Attend(inputs, lengths, fresh: false)) { IsJudged = true };
        yield return new($"{name}, fresh", inputs => Attend(inputs, lengths, fresh: true)) { IsJudged = true };
    }

    private (Tensor Output, Tensor? State) AttendWhole(VarlenInputs inputs)
    {
        Kernels.CudaPath = _path;
        return Functional.lightning_attention(
            inputs.Whole.Q, inputs.Whole.K, inputs.Whole.V, inputs.Whole.DecayRates, output_block_states: false);
    }

    private (Tensor Output, Tensor? State) Attend(VarlenInputs inputs, Lengths lengths, bool fresh)
    {
        Kernels.CudaPath = _path;
        return (
            Functional.lightning_attention_varlen(
                inputs.Q, inputs.K, inputs.V, inputs.Whole.DecayRates, inputs.Offsets(lengths), inputs.Pool,
                inputs.Slots, fresh ? inputs.Fresh : null),
            null);
    }
}
