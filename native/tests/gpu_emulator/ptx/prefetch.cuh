// Emulates ptx/prefetch.cuh.
#pragma once

#include <cstdint>

namespace lattn::cuda::ptx {

inline void prefetch_bytes(const void*, uint32_t) {}

} // namespace lattn::cuda::ptx
