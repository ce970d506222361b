using System.Diagnostics;
using TorchSharp;
using static TorchSharp.torch;

namespace LightningAttn.Benchmarks;

/// <summary>Times calls on a device.</summary>
/// <remarks>
/// TorchSharp has no CUDA events: a sample is many queued calls between two synchronisations, divided by their number,
/// so that the queue stays full and the synchronisations do not count.
/// </remarks>
internal sealed class Timer(Device device, int samples)
{
    private const double MinSampleMicroseconds = 20_000;
    private const double WarmUpMicroseconds = 200_000;
    private const int MaxCallsPerSample = 2000;

    // Few enough to fit into the driver's launch queue: beyond that, a call waits for the device.
    private const int HostCalls = 20;

    /// <param name="call">Runs the operation once; its argument counts the calls.</param>
    public Timing Measure(Action<int> call)
    {
        var perCall = WarmUp(call);
        var calls = (int)Math.Clamp(MinSampleMicroseconds / perCall, 1, MaxCallsPerSample);
        var times = new double[samples];
        for (var sample = 0; sample < samples; sample++)
        {
            var start = Stopwatch.GetTimestamp();
            Repeat(call, calls);
            Native.Synchronize(device);
            times[sample] = MicrosecondsSince(start) / calls;
        }

        return new Timing(Median(times), times.Min(), device.type == DeviceType.CUDA ? MeasureHost(call) : null);
    }

    private static void Repeat(Action<int> call, int count)
    {
        for (var i = 0; i < count; i++)
        {
            call(i);
        }
    }

    private static double MicrosecondsSince(long start) => Stopwatch.GetElapsedTime(start).TotalMicroseconds;

    private static double Median(double[] values)
    {
        var sorted = values.Order().ToArray();
        return (sorted[(sorted.Length - 1) / 2] + sorted[sorted.Length / 2]) / 2;
    }

    private double WarmUp(Action<int> call)
    {
        Repeat(call, 1);
        Native.Synchronize(device);
        var start = Stopwatch.GetTimestamp();
        var calls = 0;
        do
        {
            call(calls++);
            Native.Synchronize(device);
        }
        while (MicrosecondsSince(start) < WarmUpMicroseconds);
        return MicrosecondsSince(start) / calls;
    }

    private double MeasureHost(Action<int> call)
    {
        var times = new double[samples];
        for (var sample = 0; sample < samples; sample++)
        {
            var start = Stopwatch.GetTimestamp();
            Repeat(call, HostCalls);
            times[sample] = MicrosecondsSince(start) / HostCalls;
            Native.Synchronize(device);
        }

        return Median(times);
    }
}
