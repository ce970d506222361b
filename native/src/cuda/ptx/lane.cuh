// A thread's place in its warp.
#pragma once

#include "ptx/opaque.cuh"

namespace lattn::cuda::ptx {

// What follows from it is not kept in registers.
__device__ __forceinline__ int opaque_lane() {
    return static_cast<int>(opaque(threadIdx.x) % 32);
}

} // namespace lattn::cuda::ptx
