// Emulates ptx/mbarrier.cuh.
#pragma once

#include <cstdint>

#include "ptx/cp_async.cuh"

namespace lattn::cuda::ptx {

using Mbarrier = uint64_t;

inline void mbarrier_init(Mbarrier& barrier, uint32_t arrivals) {
    emulator::mbarrier_init(shared_address(&barrier), arrivals);
}

inline void fence_mbarrier_init() {
    emulator::fence_mbarrier_init();
}

inline void mbarrier_arrive(Mbarrier& barrier) {
    emulator::mbarrier_arrive(shared_address(&barrier));
}

inline void mbarrier_arrive_expect_bytes(Mbarrier& barrier, uint32_t bytes) {
    emulator::mbarrier_arrive_expect_bytes(shared_address(&barrier), bytes);
}

inline void mbarrier_wait(Mbarrier& barrier, uint32_t parity) {
    emulator::mbarrier_wait(shared_address(&barrier), parity);
}

} // namespace lattn::cuda::ptx
