// Tables of decay weights. Only exponents <= 0 are formed, so rates from 0 to 100 per token are exact or underflow to
// 0.
#pragma once

namespace lattn::cuda {

// power[n] = exp(-rate * n), n = 0 .. count - 1.
template <int kThreads>
__device__ __forceinline__ void fill_powers(float* power, int count, float rate) {
    // 0 * inf cannot occur: n = 0 gives exp(0) for every finite rate.
    for (int n = threadIdx.x; n < count; n += kThreads) power[n] = expf(-rate * static_cast<float>(n));
}

} // namespace lattn::cuda
