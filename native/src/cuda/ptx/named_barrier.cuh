// Barriers among some of a block's warps; id 0 is that of __syncthreads().
#pragma once

namespace lattn::cuda::ptx {

// Waits until `threads` threads, a multiple of 32, have come to the barrier.
__device__ __forceinline__ void barrier_sync(int id, int threads) {
    asm volatile("bar.sync %0, %1;\n" ::"r"(id), "r"(threads) : "memory");
}

} // namespace lattn::cuda::ptx
