// Emulates ptx/tensor_map_edit.cuh.
#pragma once

#include <cstdint>

#include "gpu_emulator/emulator.h"
#include "ptx/tensor_map.h"

namespace lattn::cuda::ptx {

inline void replace_address(TensorMap& map, const void* address) {
    map.data = static_cast<char*>(const_cast<void*>(address));
}

template <int kAxis>
void replace_size(TensorMap& map, uint32_t size) {
    map.sizes[kAxis] = size;
}

inline void release_maps() {}

// Kernels run one after the other: whoever changed the map has released it.
inline void acquire_map(const TensorMap& map) {
    emulator::prefetch_map(map);
}

} // namespace lattn::cuda::ptx
