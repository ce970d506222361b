using TorchSharp;
using static TorchSharp.torch;

namespace LightningAttn.Benchmarks;

/// <summary>One operation on one shape: first its check, then its measurement.</summary>
internal interface IWorkload : IDisposable
{
    /// <summary>Which of our kernels each variant runs.</summary>
    IEnumerable<string> KernelNames { get; }

    /// <summary>Compares the results of the variants with the float64 recurrence.</summary>
    /// <exception cref="GateException">One of them is wrong.</exception>
    void Check();

    /// <summary>Times the variants, ours first. Only after <see cref="Check"/>.</summary>
    IEnumerable<Row> Measure(Timer timer);
}

/// <summary>What workloads on different kinds of inputs have in common.</summary>
internal abstract class Workload<TInputs>(string operation, Shape shape, ScalarType type, Device device) : IWorkload
    where TInputs : IDisposable
{
    // Larger than any last-level cache met so far; inputs that rotate over this much come from memory.
    private const long RotationBytesCpu = 64L << 20;
    private const long RotationBytesCuda = 256L << 20;
    private const int MaxInputSets = 256;

    private readonly Dictionary<Variant<TInputs>, Errors> _errors = [];

    public IEnumerable<string> KernelNames =>
        Variants.Where(variant => variant.Kernel is not null)
            .Select(variant => $"{operation}, {variant.Name}: {variant.Kernel}");

    protected Shape Shape => shape;

    protected ScalarType Type => type;

    protected Device Device => device;

    /// <summary>What is measured, ours without block states first.</summary>
    protected abstract IReadOnlyList<Variant<TInputs>> Variants { get; }

    /// <summary>The least precise type that results are rounded to.</summary>
    protected virtual ScalarType GateType => type;

    /// <summary>Bytes of one set of inputs that a call touches.</summary>
    protected abstract long BytesPerSet { get; }

    public void Check()
    {
        foreach (var (variant, errors) in CheckedErrors())
        {
            _errors[variant] = errors;
            CorrectnessGate.Require($"{operation} {shape} {type}, {variant.Name}", errors, GateType);
        }
    }

    public virtual IEnumerable<Row> Measure(Timer timer)
    {
        var rotation = device.type == DeviceType.CUDA ? RotationBytesCuda : RotationBytesCpu;
        var count = (int)Math.Clamp((rotation + BytesPerSet - 1) / BytesPerSet, 1, MaxInputSets);
        var sets = Enumerable.Range(0, count).Select(_ => new Set(CreateInputs())).ToArray();
        try
        {
            Row? first = null;
            foreach (var group in Variants.GroupBy(variant => variant.Name))
            {
                var row = group.Select(variant => Measure(variant, sets, timer)).MinBy(x => x.Time.Microseconds)!;
                first ??= row;
                yield return row with { TimesFirst = row.Time.Microseconds / first.Time.Microseconds };
            }
        }
        finally
        {
            foreach (var set in sets)
            {
                set.Dispose();
            }
        }
    }

    public virtual void Dispose()
    {
    }

    protected abstract TInputs CreateInputs();

    /// <summary>The errors of the variants that are to be checked.</summary>
    protected abstract IEnumerable<(Variant<TInputs> Variant, Errors Errors)> CheckedErrors();

    /// <summary>The call that is timed, and its results.</summary>
    protected abstract Tensor[] Run(Variant<TInputs> variant, TInputs inputs);

    protected abstract Work WorkOf(Variant<TInputs> variant);

    /// <summary>Null where none are set for this shape.</summary>
    protected abstract Limits? LimitsOf(double floorMicroseconds);

    /// <summary>Device memory of a call of ours beyond inputs and results; null where it is not known.</summary>
    protected abstract long? ExtraBytesOf(Variant<TInputs> variant, TInputs inputs, Tensor[] results);

    private Row Measure(Variant<TInputs> variant, Set[] sets, Timer timer)
    {
        var turn = 0;
        var time = timer.Measure(() => sets[turn++ % sets.Length].Run(inputs => Run(variant, inputs)));
        var work = WorkOf(variant);
        var floor = work.FloorMicroseconds(timer.CopyBytesPerSecond);
        var isCuda = device.type == DeviceType.CUDA;

        // The CPU backend allocates scratch of its own, which nothing reports.
        long? extra = variant.Kernel is not null && isCuda
            ? ExtraBytesOf(variant, sets[0].Inputs, sets[0].Results)
            : null;
        foreach (var set in sets)
        {
            set.DisposeResults();
        }

        return new Row
        {
            Operation = operation,
            Shape = shape,
            Variant = variant.Name,
            Chunk = variant.Chunk,
            Kernel = variant.Kernel,
            Time = time,
            Work = work,
            FloorMicroseconds = floor,
            Limits = variant.IsJudged && isCuda ? LimitsOf(floor) : null,
            Errors = _errors.TryGetValue(variant, out var errors) ? errors : null,
            ExtraBytes = extra,
            TensorBytes = 4 * shape.Elements * type.ElementSize(),
            TimesFirst = 1,
        };
    }

    /// <summary>
    /// Inputs and the results of their latest call. The results live until the next turn of these inputs: freed at
    /// once, their memory would serve the next call too and stay in the cache.
    /// </summary>
    private sealed class Set(TInputs inputs) : IDisposable
    {
        public TInputs Inputs => inputs;

        public Tensor[] Results { get; private set; } = [];

        public void Run(Func<TInputs, Tensor[]> call)
        {
            DisposeResults();
            using var scope = NewDisposeScope();
            Results = call(inputs);
            foreach (var result in Results)
            {
                result.DetachFromDisposeScope();
            }
        }

        public void DisposeResults()
        {
            foreach (var result in Results)
            {
                result.Dispose();
            }

            Results = [];
        }

        public void Dispose()
        {
            DisposeResults();
            inputs.Dispose();
        }
    }
}
