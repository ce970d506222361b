namespace LightningAttn.Interop;

/// <summary>
/// How many multiprocessors cuBLAS chooses its kernels for, in libtorch's matrix products on this thread and the current
/// CUDA device, until this is disposed. For products beside other work: cuBLAS takes the whole GPU to be its own.
/// </summary>
internal readonly unsafe ref struct BlasTarget
{
    // Of libtorch's stable C ABI since 2.10. A handle is one thread's.
    private const string HandleExport = "torch_get_current_cuda_blas_handle";
    private const string GetExport = "cublasGetSmCountTarget";
    private const string SetExport = "cublasSetSmCountTarget";

    private static readonly Lazy<nint> s_handle = new(static () => TorchNative.FindCuda(HandleExport));
    private static readonly Lazy<nint> s_get = new(static () => TorchNative.FindCuda(GetExport));
    private static readonly Lazy<nint> s_set = new(static () => TorchNative.FindCuda(SetExport));

    private readonly nint _handle;
    private readonly int _before;

    private BlasTarget(nint handle, int before) => (_handle, _before) = (handle, before);

    /// <summary>
    /// Whether targets can be set: with a libtorch that gives its handle away, where a library's symbols are found
    /// through those that are linked to it (not on Windows).
    /// </summary>
    internal static bool IsSupported => s_handle.Value != 0 && s_get.Value != 0 && s_set.Value != 0;

    /// <summary>The target in force; 0: the device's multiprocessors.</summary>
    internal static int Current => Get(Handle());

    /// <param name="multiprocessors">0: all of the device's, as without a target.</param>
    internal static BlasTarget Set(int multiprocessors)
    {
        nint handle = Handle();
        var before = new BlasTarget(handle, Get(handle));
        Set(handle, multiprocessors);
        return before;
    }

    public void Dispose()
    {
        if (_handle != 0)
        {
            Set(_handle, _before);
        }
    }

    private static nint Handle()
    {
        nint handle;
        Check(((delegate* unmanaged<nint*, int>)s_handle.Value)(&handle), HandleExport);
        return handle;
    }

    private static int Get(nint handle)
    {
        int multiprocessors;
        Check(((delegate* unmanaged<nint, int*, int>)s_get.Value)(handle, &multiprocessors), GetExport);
        return multiprocessors;
    }

    private static void Set(nint handle, int multiprocessors) =>
        Check(((delegate* unmanaged<nint, int, int>)s_set.Value)(handle, multiprocessors), SetExport);

    private static void Check(int status, string function)
    {
        if (status != 0)
        {
            throw new LightningAttnException($"{function} failed (status {status}).");
        }
    }
}
