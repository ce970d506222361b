// Kernels that overlap with the one before them on their stream (programmatic dependent launch, sm_90 and newer). On
// older GPUs, where no kernel starts during another, both functions do nothing.
#pragma once

namespace lattn::cuda::ptx {

// The next kernel may start once every block of this one has come here or has ended.
__device__ __forceinline__ void let_next_kernel_start() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;\n" ::: "memory");
#endif
}

// Waits until the kernel before this one is complete and what it wrote is visible; returns at once in a kernel that was
// launched after it.
__device__ __forceinline__ void wait_for_prior_kernel() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;\n" ::: "memory");
#endif
}

} // namespace lattn::cuda::ptx
