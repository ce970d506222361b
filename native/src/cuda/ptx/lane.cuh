// A thread's place in its warp.
#pragma once

#include "ptx/opaque.cuh"

namespace lattn::cuda::ptx {

// What follows from it is not kept in registers.
__device__ __forceinline__ int opaque_lane() {
    return static_cast<int>(opaque(threadIdx.x) % 32);
}

// The value of the first lane, by a whole warp: the compiler knows it to be the same in all lanes.
__device__ __forceinline__ int of_first_lane(int value) {
    return __shfl_sync(0xffffffffu, value, 0);
}

} // namespace lattn::cuda::ptx
