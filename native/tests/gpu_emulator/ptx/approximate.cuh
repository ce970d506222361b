// Emulates ptx/approximate.cuh, to fp32's accuracy.
#pragma once

#include <cmath>

namespace lattn::cuda::ptx {

inline float approximate_exp2(float x) {
    return std::exp2(x);
}

inline float approximate_reciprocal(float x) {
    return 1.0f / x;
}

inline float approximate_rsqrt(float x) {
    return static_cast<float>(1.0 / std::sqrt(static_cast<double>(x)));
}

} // namespace lattn::cuda::ptx
