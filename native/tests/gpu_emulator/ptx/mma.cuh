// Emulates ptx/mma.cuh.
#pragma once

#include <cstdint>

#include "gpu_emulator/instructions.h"

namespace lattn::cuda::ptx {

inline void mma_m16n8k16_bf16(float (&acc)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    emulator::multiply(emulator::ElementType::kBfloat16, acc, a, b);
}

inline void mma_m16n8k8_tf32(float (&acc)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    emulator::multiply(emulator::ElementType::kTf32, acc, a, b);
}

} // namespace lattn::cuda::ptx
