// Emulates ptx/prefetch.cuh.
#pragma once

#include <cstdint>

namespace lattn::cuda::ptx {

inline void prefetch_bytes(const void*, uint32_t) {}

inline void prefetch_line(const void*) {}

} // namespace lattn::cuda::ptx
