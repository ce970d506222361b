// A tensor map as the emulator keeps it; made by emulator::make_tensor_map().
#pragma once

#include <cstdint>

namespace lattn::cuda::ptx {

struct alignas(64) TensorMap {
    uint64_t mark; // of a map that was made
    char* data;
    int64_t sizes[4];
    int64_t strides_bytes[4];
    int32_t box[4];
    int32_t element_bytes;
    int32_t swizzled;
};
static_assert(sizeof(TensorMap) == 128);

} // namespace lattn::cuda::ptx
