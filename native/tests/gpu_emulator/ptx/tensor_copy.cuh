// Emulates ptx/tensor_copy.cuh.
#pragma once

#include <cstdint>

#include "ptx/mbarrier.cuh"
#include "ptx/tensor_map.h"

namespace lattn::cuda::ptx {

struct Coordinates {
    int32_t x, y, z, w;
};

enum class Keep { kNormally, kShortly };

inline void prefetch_map(const TensorMap& map) {
    emulator::prefetch_map(map);
}

inline void load_box(void* shared, const TensorMap& map, Mbarrier& barrier, Coordinates at, Keep = Keep::kNormally) {
    emulator::load_box(shared_address(shared), map, shared_address(&barrier), {at.x, at.y, at.z, at.w});
}

inline void prefetch_box(const TensorMap& map, Coordinates) {
    emulator::prefetch_map(map);
}

inline void store_box(const TensorMap& map, const void* shared, Coordinates at, Keep = Keep::kNormally) {
    emulator::store_box(map, shared_address(shared), {at.x, at.y, at.z, at.w});
}

inline void commit_stores() {
    emulator::commit_stores();
}

template <int kPending>
void wait_stores_read() {
    emulator::wait_stores_read(kPending);
}

inline void wait_stores() {
    emulator::wait_stores();
}

inline void fence_async_shared() {
    emulator::fence_async_shared();
}

} // namespace lattn::cuda::ptx
