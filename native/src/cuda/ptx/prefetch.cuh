// Prefetches of global memory into L2 (sm_90).
#pragma once

#include <cstdint>

namespace lattn::cuda::ptx {

// Address and number of bytes are multiples of 16.
__device__ __forceinline__ void prefetch_bytes(const void* address, uint32_t bytes) {
    asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;\n" ::"l"(__cvta_generic_to_global(address)), "r"(bytes));
}

} // namespace lattn::cuda::ptx
