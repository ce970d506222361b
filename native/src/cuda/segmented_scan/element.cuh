// The element types of the segmented scan: conversions, and how numbers that an element type cannot hold are kept.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "ptx/convert.cuh"
#include "ptx/packed_bf16.cuh"

namespace lattn::cuda {

// Scores and states are rounded to the element type on their way to the output. fp16 reaches 65504 only, so there every
// row of them is scaled by a power of two that brings its largest magnitude to [2^14, 2^15).
template <typename T>
struct ScanElement;

template <>
struct ScanElement<__nv_bfloat16> {
    static constexpr bool kScaled = false;
    __device__ __forceinline__ static uint32_t pack(float low, float high) { return ptx::pack_bf16(low, high); }

    // Weights of the two values in a register, in two bf16 parts.
    static constexpr bool kPackedWeights = true;
    struct WeightPair {
        uint32_t high, low;
    };

    __device__ __forceinline__ static WeightPair weight_pair(float first, float second) {
        const uint32_t high = ptx::pack_bf16(first, second);
        const float2 kept = ptx::unpack_bf16(high);
        return {high, ptx::pack_bf16(first - kept.x, second - kept.y)};
    }

    // high + low = values * weights to 16 bits: what high does not hold of values * weight.high is a bf16.
    __device__ __forceinline__ static void weigh(const uint32_t (&values)[4], const WeightPair (&weight)[2],
                                                 uint32_t (&high)[4], uint32_t (&low)[4]) {
#pragma unroll
        for (int i = 0; i < 4; ++i) high[i] = ptx::mul_bf16(values[i], weight[i / 2].high);
#pragma unroll
        for (int i = 0; i < 4; ++i) low[i] = ptx::fma_bf16(values[i], weight[i / 2].high, ptx::negate_bf16(high[i]));
#pragma unroll
        for (int i = 0; i < 4; ++i) low[i] = ptx::fma_bf16(values[i], weight[i / 2].low, low[i]);
    }
};

template <>
struct ScanElement<__half> {
    static constexpr bool kScaled = true;
    __device__ __forceinline__ static uint32_t pack(float low, float high) { return ptx::pack_half(low, high); }

    // fp16 cannot hold small weights.
    static constexpr bool kPackedWeights = false;
    struct WeightPair {
        float first, second;
    };

    __device__ __forceinline__ static WeightPair weight_pair(float first, float second) { return {first, second}; }

    // high + low = values * weights to 22 bits.
    __device__ __forceinline__ static void weigh(const uint32_t (&values)[4], const WeightPair (&weight)[2],
                                                 uint32_t (&high)[4], uint32_t (&low)[4]) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const float2 exact = ptx::unpack_half(values[i]);
            const float first = exact.x * weight[i / 2].first;
            const float second = exact.y * weight[i / 2].second;
            high[i] = ptx::pack_half(first, second);
            const float2 kept = ptx::unpack_half(high[i]);
            low[i] = ptx::pack_half(first - kept.x, second - kept.y);
        }
    }
};

__device__ __forceinline__ float power_of_two(int exponent) {
    return __uint_as_float(static_cast<uint32_t>(exponent + 127) << 23);
}

// 1 / power for a power of two from 2^-126 to 2^127.
__device__ __forceinline__ float inverse_power_of_two(float power) {
    return __uint_as_float((254u << 23) - __float_as_uint(power));
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
