// Activations of neighbouring elements, and their derivatives.
#pragma once

#include "lightning_attn.h"
#include "ptx/approximate.cuh"
#include "tile/packed.cuh"

namespace lattn::cuda {

// exp(x) and 1 / x. Results that are rounded to 16 bits need no more than the hardware's functions give.
template <typename T>
__device__ __forceinline__ float exponential(float x) {
    constexpr float kLog2E = 1.4426950408889634f;
    if constexpr (sizeof(T) == 2)
        return ptx::approximate_exp2(kLog2E * x);
    else
        return expf(x);
}

template <typename T>
__device__ __forceinline__ float reciprocal(float x) {
    if constexpr (sizeof(T) == 2)
        return ptx::approximate_reciprocal(x);
    else
        return 1.0f / x;
}

// exp(-x) may be infinite: then this is zero.
template <typename T>
__device__ __forceinline__ float sigmoid(float x) {
    return reciprocal<T>(1.0f + exponential<T>(-x));
}

// The branches are around whole pieces, so that a piece's elements are computed side by side.
template <typename T, int kWidth>
__device__ __forceinline__ void activate(int activation, const Packed<T, kWidth>& gate, float (&value)[kWidth]) {
    if (activation == LATTN_IDENTITY) {
#pragma unroll
        for (int i = 0; i < kWidth; ++i) value[i] = gate[i];
    } else if (activation == LATTN_SIGMOID) {
#pragma unroll
        for (int i = 0; i < kWidth; ++i) value[i] = sigmoid<T>(gate[i]);
    } else {
#pragma unroll
        for (int i = 0; i < kWidth; ++i) value[i] = gate[i] * sigmoid<T>(gate[i]);
    }
}

template <typename T, int kWidth>
__device__ __forceinline__ void activate(int activation, const Packed<T, kWidth>& gate, float (&value)[kWidth],
                                         float (&derivative)[kWidth]) {
    if (activation == LATTN_IDENTITY) {
#pragma unroll
        for (int i = 0; i < kWidth; ++i) {
            value[i] = gate[i];
            derivative[i] = 1.0f;
        }
        return;
    }
    const bool silu = activation == LATTN_SILU;
#pragma unroll
    for (int i = 0; i < kWidth; ++i) {
        // sigmoid(x) and 1 - sigmoid(x) = sigmoid(-x), from exp of what is not positive.
        const float decay = exponential<T>(-fabsf(gate[i]));
        const float larger = reciprocal<T>(1.0f + decay), smaller = decay * larger;
        const bool positive = gate[i] >= 0.0f;
        const float of_gate = positive ? larger : smaller, complement = positive ? smaller : larger;
        value[i] = silu ? gate[i] * of_gate : of_gate;
        derivative[i] = of_gate * (silu ? fmaf(gate[i], complement, 1.0f) : complement);
    }
}

} // namespace lattn::cuda
