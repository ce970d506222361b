// Conversions of single elements, and stores of neighbouring pairs.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

namespace lattn::cuda {

__device__ __forceinline__ float to_float(float x) {
    return x;
}
__device__ __forceinline__ float to_float(__half x) {
    return __half2float(x);
}
__device__ __forceinline__ float to_float(__nv_bfloat16 x) {
    return __bfloat162float(x);
}

template <typename T>
__device__ __forceinline__ T from_float(float x);
template <>
__device__ __forceinline__ float from_float<float>(float x) {
    return x;
}
template <>
__device__ __forceinline__ __half from_float<__half>(float x) {
    return __float2half_rn(x);
}
template <>
__device__ __forceinline__ __nv_bfloat16 from_float<__nv_bfloat16>(float x) {
    return __float2bfloat16_rn(x);
}

// Stores two neighbours; as one word when `paired` says that the address allows it.
template <typename T>
__device__ __forceinline__ void store_pair(T* destination, float first, float second, bool paired) {
    if (paired) {
        struct alignas(2 * sizeof(T)) Pair {
            T x, y;
        };
        *reinterpret_cast<Pair*>(destination) = {from_float<T>(first), from_float<T>(second)};
    } else {
        destination[0] = from_float<T>(first);
        destination[1] = from_float<T>(second);
    }
}

} // namespace lattn::cuda
