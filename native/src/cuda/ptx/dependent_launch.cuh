// Kernels that overlap with the one before them on their stream (sm_90, programmatic dependent launch).
#pragma once

namespace lattn::cuda::ptx {

// The next kernel may start once every block of this one has come here or has ended.
__device__ __forceinline__ void let_next_kernel_start() {
    asm volatile("griddepcontrol.launch_dependents;\n" ::: "memory");
}

// Waits until the kernel before this one is complete and what it wrote is visible; returns at once in a kernel that was
// launched after it.
__device__ __forceinline__ void wait_for_prior_kernel() {
    asm volatile("griddepcontrol.wait;\n" ::: "memory");
}

} // namespace lattn::cuda::ptx
