using System.Runtime.InteropServices;

namespace LightningAttn.Tests.Support;

/// <summary>
/// Calls recorded as a CUDA graph. TorchSharp has no streams, and libtorch's default one cannot be captured; so the
/// stream comes from the driver, and libtorch's C ABI makes it this thread's current one while the calls are made.
/// </summary>
internal sealed unsafe class CudaGraph : IDisposable
{
    private const uint NonBlocking = 1;
    private const int CaptureOfThisThread = 1;

    private static readonly nint s_driver =
        NativeLibrary.Load(OperatingSystem.IsWindows() ? "nvcuda.dll" : "libcuda.so.1");

    private readonly nint _stream;
    private readonly nint _graph;
    private readonly nint _executable;

    /// <summary>Records what <paramref name="calls"/> queue; nothing of them runs. They must not allocate tensors.</summary>
    internal CudaGraph(Device device, Action calls)
    {
        nint stream, graph, executable;
        Check(((delegate* unmanaged<nint*, uint, int>)Driver("cuStreamCreate"))(&stream, NonBlocking));
        _stream = stream;
        nint guard;
        int index = Math.Max(device.index, 0);
        Check(((delegate* unmanaged<nint, int, nint*, int>)Torch("aoti_torch_create_cuda_stream_guard"))(
            stream, index, &guard));
        try
        {
            Check(((delegate* unmanaged<nint, int, int>)Driver("cuStreamBeginCapture_v2"))(
                stream, CaptureOfThisThread));
            calls();
            Check(((delegate* unmanaged<nint, nint*, int>)Driver("cuStreamEndCapture"))(stream, &graph));
        }
        finally
        {
            _ = ((delegate* unmanaged<nint, int>)Torch("aoti_torch_delete_cuda_stream_guard"))(guard);
        }

        _graph = graph;
        Check(((delegate* unmanaged<nint*, nint, ulong, int>)Driver("cuGraphInstantiateWithFlags"))(
            &executable, graph, 0));
        _executable = executable;
    }

    /// <summary>Runs the calls once and waits for them.</summary>
    internal void Replay()
    {
        Check(((delegate* unmanaged<nint, nint, int>)Driver("cuGraphLaunch"))(_executable, _stream));
        Check(((delegate* unmanaged<nint, int>)Driver("cuStreamSynchronize"))(_stream));
    }

    public void Dispose()
    {
        _ = ((delegate* unmanaged<nint, int>)Driver("cuGraphExecDestroy"))(_executable);
        _ = ((delegate* unmanaged<nint, int>)Driver("cuGraphDestroy"))(_graph);
        _ = ((delegate* unmanaged<nint, int>)Driver("cuStreamDestroy_v2"))(_stream);
    }

    private static nint Driver(string function) => NativeLibrary.GetExport(s_driver, function);

    private static nint Torch(string function) =>
        NativeLibrary.GetExport(NativeLibrary.Load("torch_cuda", typeof(torch).Assembly, null), function);

    private static void Check(int status) => Assert.That(status, Is.Zero, "a CUDA driver or libtorch status");
}
