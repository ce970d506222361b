namespace LightningAttn.Interop;

/// <summary>lattn_cuda_path: which CUDA kernels serve a forward call.</summary>
internal enum CudaPath
{
    Automatic = 0,

    /// <summary>mma.sync, compute capability 8.0 and higher.</summary>
    General = 1,

    /// <summary>wgmma, compute capability 9.0; an error where it does not take the problem.</summary>
    Hopper = 2,
}
