using System.Diagnostics;
using LightningAttn.Interop;
using static TorchSharp.torch;

namespace LightningAttn.Benchmarks;

/// <summary>On CUDA: a sample is the time between events around a batch of calls, divided by their number.</summary>
/// <remarks>
/// A batch and not a call between two events: an event has a resolution of half a microsecond and takes stream time of
/// its own, and the calls of a stream follow each other anyway. Copies queued before the first event keep the device
/// busy until the whole batch is queued; a sample counts only if the device had not reached the first event by then, so
/// that no host time is in it. What queues more launches than the driver holds cannot meet that and is marked.
/// </remarks>
internal sealed class DeviceTimer : Timer
{
    private const double BatchMicroseconds = 2000;

    // With the handful of launches that a call takes, few enough for the driver's queue of about a thousand.
    private const int MaxCallsPerBatch = 50;
    private const int MaxCopies = 128;

    private readonly nint _stream;
    private readonly CudaDriver.Event _start;
    private readonly CudaDriver.Event _end;

    public DeviceTimer(Device device, int samples)
        : base(device, samples, 1L << 30)
    {
        CudaDriver.EnsureContext(Buffer.device_index);
        _stream = TorchNative.CurrentStream(Buffer);
        _start = new CudaDriver.Event();
        _end = new CudaDriver.Event();
    }

    public override Timing Measure(Action call)
    {
        var calls = (int)Math.Clamp(BatchMicroseconds / WarmUp(call), 1, MaxCallsPerBatch);
        var (times, hostTimes) = (new double[Samples], new double[Samples]);
        var (copies, hostShows) = (1, false);
        for (var sample = 0; sample < Samples;)
        {
            var (time, hostTime, queuedInTime) = MeasureBatch(call, calls, copies);
            if (!queuedInTime && !hostShows)
            {
                hostShows = copies == MaxCopies;
                copies = hostShows ? 1 : 2 * copies;
                continue;
            }

            (times[sample], hostTimes[sample]) = (time / calls, hostTime / calls);
            sample++;
        }

        return Timing.Of(times, hostTimes, hostShows);
    }

    public override void Dispose()
    {
        _start.Dispose();
        _end.Dispose();
        base.Dispose();
    }

    private (double Time, double HostTime, bool QueuedInTime) MeasureBatch(Action call, int calls, int copies)
    {
        Repeat(Copy, copies);
        _start.Record(_stream);
        var hostStart = Stopwatch.GetTimestamp();
        Repeat(call, calls);
        var hostTime = MicrosecondsSince(hostStart);
        _end.Record(_stream);
        var queuedInTime = !_start.IsReached;
        _end.Synchronize();
        return (_end.MicrosecondsSince(_start), hostTime, queuedInTime);
    }
}
