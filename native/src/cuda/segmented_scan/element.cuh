// The element types of the segmented scan: conversions, and how numbers that an element type cannot hold are kept.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "ptx/convert.cuh"

namespace lattn::cuda {

// Scores and states are rounded to the element type on their way to the output. fp16 reaches 65504 only, so there every
// row of them is scaled by a power of two that brings its largest magnitude to [2^14, 2^15).
template <typename T>
struct ScanElement;

template <>
struct ScanElement<__nv_bfloat16> {
    static constexpr bool kScaled = false;
    __device__ __forceinline__ static uint32_t pack(float low, float high) { return ptx::pack_bf16(low, high); }
    __device__ __forceinline__ static float2 unpack(uint32_t packed) { return ptx::unpack_bf16(packed); }
};

template <>
struct ScanElement<__half> {
    static constexpr bool kScaled = true;
    __device__ __forceinline__ static uint32_t pack(float low, float high) { return ptx::pack_half(low, high); }
    __device__ __forceinline__ static float2 unpack(uint32_t packed) { return ptx::unpack_half(packed); }
};

__device__ __forceinline__ float power_of_two(int exponent) {
    return __uint_as_float(static_cast<uint32_t>(exponent + 127) << 23);
}

// Exponent of the power of two that brings `largest` to [2^14, 2^15) when divided by it; at least `least`, which also
// serves a row of zeros. least >= -113, so that the power and its inverse are normal numbers.
__device__ __forceinline__ int scale_exponent(float largest, int least) {
    const int exponent = static_cast<int>(__float_as_uint(largest) >> 23) - 127;
    return max(exponent - 14, least);
}

// The largest of four neighbouring lanes, which hold a row of accumulators together.
__device__ __forceinline__ float largest_of_row(float value) {
    value = fmaxf(value, __shfl_xor_sync(0xffffffffu, value, 1));
    return fmaxf(value, __shfl_xor_sync(0xffffffffu, value, 2));
}

} // namespace lattn::cuda
