// Emulates ptx/register_count.cuh.
#pragma once

#include "gpu_emulator/instructions.h"

namespace lattn::cuda::ptx {

template <int kCount>
void give_registers() {
    emulator::give_registers(kCount);
}

template <int kCount>
void take_registers() {
    emulator::take_registers(kCount);
}

} // namespace lattn::cuda::ptx
