// Changes to a tensor map in global memory, and what makes them known to the copy engine (sm_90a).
#pragma once

#include <cstdint>

#include "ptx/tensor_map.h"

namespace lattn::cuda::ptx {

// The tensor's first element, at a multiple of 16 bytes.
__device__ __forceinline__ void replace_address(TensorMap& map, const void* address) {
    asm volatile("tensormap.replace.tile.global_address.global.b1024.b64 [%0], %1;\n" ::"l"(
                     __cvta_generic_to_global(&map)),
                 "l"(__cvta_generic_to_global(address))
                 : "memory");
}

// The tensor's size along its axis kAxis, counted from the innermost one; at least 1.
template <int kAxis>
__device__ __forceinline__ void replace_size(TensorMap& map, uint32_t size) {
    asm volatile("tensormap.replace.tile.global_dim.global.b1024.b32 [%0], %1, %2;\n" ::"l"(
                     __cvta_generic_to_global(&map)),
                 "n"(kAxis), "r"(size)
                 : "memory");
}

// By the thread that has changed maps, before others acquire them.
__device__ __forceinline__ void release_maps() {
    asm volatile("fence.proxy.tensormap::generic.release.gpu;\n" ::: "memory");
}

// By a thread that uses a map which another one has changed.
__device__ __forceinline__ void acquire_map(const TensorMap& map) {
    asm volatile("fence.proxy.tensormap::generic.acquire.gpu [%0], 128;\n" ::"l"(&map) : "memory");
}

} // namespace lattn::cuda::ptx
