// Emulates ptx/dependent_launch.cuh. What a kernel does before it waits, it does before the one before it begins: the
// most that they may overlap.
#pragma once

#include "gpu_emulator/instructions.h"

namespace lattn::cuda::ptx {

inline void let_next_kernel_start() {}

inline void wait_for_prior_kernel() {
    emulator::wait_for_prior_kernel();
}

} // namespace lattn::cuda::ptx
