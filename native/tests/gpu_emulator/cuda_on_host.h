// Host meanings of CUDA C++'s words, for kernels that the host's compiler builds for the emulator. Included before
// everything else (-include).
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <vector_functions.h>
#include <vector_types.h>

#include <bit>
#include <cmath>
#include <cstdint>

#include "gpu_emulator/instructions.h"

#undef __device__
#undef __forceinline__
#undef __global__
#undef __grid_constant__
#undef __launch_bounds__
#undef __shared__
#define __device__
#define __forceinline__ inline
#define __global__
#define __grid_constant__
#define __launch_bounds__(...)
#define __shared__ static // blocks run one after the other

// Those of the thread that runs.
extern uint3 threadIdx;
extern uint3 blockIdx;
extern dim3 blockDim;
extern dim3 gridDim;

inline void __syncthreads() {
    lattn::emulator::sync_block();
}

inline void __syncwarp(unsigned mask = 0xffffffffu) {
    lattn::emulator::sync_warp(mask);
}

// `exchange` moves 32 bits between lanes.
template <typename T, typename Exchange>
T shuffled_words(T value, Exchange exchange) {
    if constexpr (sizeof(T) == sizeof(uint64_t)) {
        const auto bits = std::bit_cast<uint64_t>(value);
        const uint64_t low = exchange(static_cast<uint32_t>(bits));
        const uint64_t high = exchange(static_cast<uint32_t>(bits >> 32));
        return std::bit_cast<T>(high << 32 | low);
    } else
        return std::bit_cast<T>(exchange(std::bit_cast<uint32_t>(value)));
}

template <typename T>
T __shfl_sync(unsigned mask, T value, int lane, int width = 32) {
    return shuffled_words(value,
                          [&](uint32_t word) -> uint32_t { return lattn::emulator::shuffle(mask, word, lane, width); });
}

template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int lane_mask, int width = 32) {
    return shuffled_words(
        value, [&](uint32_t word) -> uint32_t { return lattn::emulator::shuffle_xor(mask, word, lane_mask, width); });
}

inline unsigned __ballot_sync(unsigned mask, bool vote) {
    unsigned votes = 0;
    for (int lane = 0; lane < 32; ++lane)
        if (mask >> lane & 1) votes |= __shfl_sync(mask, vote ? 1u : 0u, lane) << lane;
    return votes;
}

inline int __ffs(int bits) {
    return std::countr_zero(static_cast<unsigned>(bits)) % 32 + (bits != 0 ? 1 : 0);
}

inline int __popc(unsigned bits) {
    return std::popcount(bits);
}

inline unsigned __float_as_uint(float value) {
    return std::bit_cast<unsigned>(value);
}

inline float __uint_as_float(unsigned value) {
    return std::bit_cast<float>(value);
}

// Threads take turns at synchronisation only.
template <typename T, typename Value>
T atomicAdd(T* address, Value value) {
    const T old = *address;
    *address = static_cast<T>(old + value);
    return old;
}

template <typename T>
T __ldg(const T* pointer) {
    return *pointer;
}

template <typename T>
T __ldcg(const T* pointer) {
    return *pointer;
}

template <typename T>
constexpr T min(T a, T b) {
    return b < a ? b : a;
}

template <typename T>
constexpr T max(T a, T b) {
    return a < b ? b : a;
}
