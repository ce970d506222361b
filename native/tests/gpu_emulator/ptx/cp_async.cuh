// Emulates the functions of ptx/cp_async.cuh that kernels for sm_90a use.
#pragma once

#include <cstdint>

#include "gpu_emulator/instructions.h"

namespace lattn::cuda::ptx {

inline uint32_t shared_address(const void* pointer) {
    return emulator::shared_address(pointer);
}

} // namespace lattn::cuda::ptx
