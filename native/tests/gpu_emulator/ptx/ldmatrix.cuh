// Emulates ptx/ldmatrix.cuh.
#pragma once

#include <cstdint>

#include "gpu_emulator/instructions.h"

namespace lattn::cuda::ptx {

inline void ldmatrix_x4(uint32_t (&matrices)[4], uint32_t row_address) {
    emulator::load_matrices(matrices, row_address, false);
}

inline void ldmatrix_x4_transposed(uint32_t (&matrices)[4], uint32_t row_address) {
    emulator::load_matrices(matrices, row_address, true);
}

} // namespace lattn::cuda::ptx
