// Emulates ptx/prefetch.cuh.
#pragma once

namespace lattn::cuda::ptx {

inline void prefetch_line(const void*) {}

} // namespace lattn::cuda::ptx
