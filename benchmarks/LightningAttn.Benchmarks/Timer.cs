using System.Diagnostics;
using TorchSharp;
using static TorchSharp.torch;

namespace LightningAttn.Benchmarks;

/// <summary>Times calls on a device, and the device's copies.</summary>
internal abstract class Timer : IDisposable
{
    private const double WarmUpMicroseconds = 200_000;

    private readonly Device _device;
    private readonly Tensor _source;
    private readonly Tensor _target;

    protected Timer(Device device, int samples, long copyBytes)
    {
        (_device, Samples) = (device, samples);
        _source = rand(copyBytes / sizeof(float), device: device);
        _target = empty_like(_source);
    }

    /// <summary>Bytes read plus bytes written per second when the device copies; measured once.</summary>
    public double CopyBytesPerSecond
    {
        get => field = field > 0 ? field : 2 * _source.numel() * sizeof(float) / (Measure(Copy).Microseconds * 1e-6);
    }

    protected int Samples { get; }

    /// <summary>A tensor of the device.</summary>
    protected Tensor Buffer => _source;

    public static Timer For(Device device, int samples) =>
        device.type == DeviceType.CUDA ? new DeviceTimer(device, samples) : new WallTimer(device, samples);

    /// <param name="call">Runs the operation once.</param>
    public abstract Timing Measure(Action call);

    public virtual void Dispose()
    {
        _source.Dispose();
        _target.Dispose();
    }

    protected static void Repeat(Action action, int count)
    {
        for (var i = 0; i < count; i++)
        {
            action();
        }
    }

    protected static double MicrosecondsSince(long start) => Stopwatch.GetElapsedTime(start).TotalMicroseconds;

    protected void Copy() => _target.copy_(_source);

    /// <summary>Microseconds of a call, host included.</summary>
    protected double WarmUp(Action call)
    {
        Repeat(call, 1);
        Native.Synchronize(_device);
        var start = Stopwatch.GetTimestamp();
        var calls = 0;
        do
        {
            call();
            Native.Synchronize(_device);
            calls++;
        }
        while (MicrosecondsSince(start) < WarmUpMicroseconds);
        return MicrosecondsSince(start) / calls;
    }
}

/// <summary>On the CPU: a sample is the wall clock over many calls, divided by their number.</summary>
internal sealed class WallTimer(Device device, int samples) : Timer(device, samples, 1L << 28)
{
    private const double SampleMicroseconds = 20_000;
    private const int MaxCallsPerSample = 2000;

    public override Timing Measure(Action call)
    {
        var calls = (int)Math.Clamp(SampleMicroseconds / WarmUp(call), 1, MaxCallsPerSample);
        var times = new double[Samples];
        for (var sample = 0; sample < Samples; sample++)
        {
            var start = Stopwatch.GetTimestamp();
            Repeat(call, calls);
            times[sample] = MicrosecondsSince(start) / calls;
        }

        return Timing.Of(times);
    }
}
