// Prefetches of global memory (sm_90).
#pragma once

#include <cstdint>

namespace lattn::cuda::ptx {

// Into L2. Address and number of bytes are multiples of 16.
__device__ __forceinline__ void prefetch_bytes(const void* address, uint32_t bytes) {
    asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;\n" ::"l"(__cvta_generic_to_global(address)), "r"(bytes));
}

// The line of 128 bytes that holds the address, into L1.
__device__ __forceinline__ void prefetch_line(const void* address) {
    asm volatile("prefetch.global.L1 [%0];\n" ::"l"(__cvta_generic_to_global(address)));
}

} // namespace lattn::cuda::ptx
