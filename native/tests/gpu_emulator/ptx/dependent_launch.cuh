// Emulates ptx/dependent_launch.cuh: kernels run one after the other.
#pragma once

namespace lattn::cuda::ptx {

inline void let_next_kernel_start() {}

inline void wait_for_prior_kernel() {}

} // namespace lattn::cuda::ptx
