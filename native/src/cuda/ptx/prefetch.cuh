// Prefetches of global memory.
#pragma once

namespace lattn::cuda::ptx {

// The line of 128 bytes that holds the address, into L2.
__device__ __forceinline__ void prefetch_line(const void* address) {
    asm volatile("prefetch.global.L2 [%0];\n" ::"l"(__cvta_generic_to_global(address)));
}

} // namespace lattn::cuda::ptx
