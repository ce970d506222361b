// Emulates ptx/stmatrix.cuh.
#pragma once

#include <cstdint>

#include "gpu_emulator/instructions.h"

namespace lattn::cuda::ptx {

inline void stmatrix_x4(uint32_t row_address, const uint32_t (&matrices)[4]) {
    emulator::store_matrices(row_address, matrices);
}

} // namespace lattn::cuda::ptx
