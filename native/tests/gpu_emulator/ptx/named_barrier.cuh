// Emulates ptx/named_barrier.cuh.
#pragma once

#include "gpu_emulator/instructions.h"

namespace lattn::cuda::ptx {

inline void barrier_sync(int id, int threads) {
    emulator::barrier_sync(id, threads);
}

} // namespace lattn::cuda::ptx
