// Emulates ptx/elect.cuh.
#pragma once

#include "gpu_emulator/cuda_on_host.h"

namespace lattn::cuda::ptx {

inline bool elect_one() {
    __syncwarp();
    return threadIdx.x % 32 == 0;
}

} // namespace lattn::cuda::ptx
