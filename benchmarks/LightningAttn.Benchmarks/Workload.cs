using TorchSharp;
using static TorchSharp.torch;

namespace LightningAttn.Benchmarks;

/// <summary>One operation on one shape: first its check, then its measurement.</summary>
internal abstract class Workload(string operation, Shape shape, ScalarType type, Device device, bool compare)
{
    // Larger than any last-level cache met so far; inputs that rotate over this much come from memory.
    private const long RotationBytesCpu = 64L << 20;
    private const long RotationBytesCuda = 256L << 20;
    private const int MaxInputSets = 16;

    public string Operation => operation;

    public Shape Shape => shape;

    protected ScalarType Type => type;

    protected Device Device => device;

    /// <summary>Whether the TorchSharp and softmax versions are run too.</summary>
    protected bool Compare => compare;

    /// <summary>Bytes that any implementation has to read and write.</summary>
    protected abstract long Bytes { get; }

    protected long BytesPerTensor =>
        (long)shape.Batch * shape.Heads * shape.Tokens * shape.HeadDim * type.ElementSize();

    protected long BytesPerState => (long)shape.Batch * shape.Heads * shape.HeadDim * shape.HeadDim * sizeof(float);

    /// <summary>Compares the results of all versions with the float64 recurrence.</summary>
    /// <exception cref="GateException">One of them is wrong.</exception>
    public abstract void Check();

    /// <summary>Times all versions. Only after <see cref="Check"/>.</summary>
    /// <param name="timer">Times calls.</param>
    /// <param name="copyBytesPerSecond">Bytes read plus bytes written when the device copies.</param>
    public abstract Row Measure(Timer timer, double copyBytesPerSecond);

    public override string ToString() => $"{operation} {shape} {type}";

    protected int InputSets(long bytesPerSet) =>
        (int)Math.Clamp(
            (device.type == DeviceType.CUDA ? RotationBytesCuda : RotationBytesCpu) / bytesPerSet, 1, MaxInputSets);

    protected Row RowOf(Timing time, double copyBytesPerSecond, LightningAttn.Operation kernel, double error) =>
        new()
        {
            Operation = operation,
            Device = device.type.ToString().ToLowerInvariant(),
            Type = type.ToString().ToLowerInvariant(),
            Shape = shape.ToString(),
            Kernel = Native.Describe(kernel, type, device, shape.HeadDim, shape.HeadDim),
            Time = time,
            GigabytesPerSecond = Bytes / (time.Microseconds * 1e3),
            TimesCopy = time.Microseconds * 1e-6 * copyBytesPerSecond / Bytes,
            Torch = null,
            TorchChunk = null,
            Softmax = null,
            Error = error,
            TorchError = null,
        };
}
