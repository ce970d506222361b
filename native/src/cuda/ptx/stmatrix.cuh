// Four 8x8 matrices of 16-bit elements to shared memory (sm_90); lane l gives the address of row l % 8 of matrix l / 8.
#pragma once

#include <cstdint>

namespace lattn::cuda::ptx {

__device__ __forceinline__ void stmatrix_x4(uint32_t row_address, const uint32_t (&matrices)[4]) {
    asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};\n" ::"r"(row_address),
                 "r"(matrices[0]), "r"(matrices[1]), "r"(matrices[2]), "r"(matrices[3])
                 : "memory");
}

} // namespace lattn::cuda::ptx
