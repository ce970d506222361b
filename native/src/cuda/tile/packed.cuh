// Neighbouring elements in registers as they lie in memory.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "ptx/opaque.cuh"
#include "tile/element.cuh"

namespace lattn::cuda {

// kCount elements as they lie in memory, in words of 4 bytes: two of 2 bytes share a register.
template <typename T, int kCount>
struct alignas(kCount * sizeof(T) < 16 ? kCount * sizeof(T) : 16) Packed {
    using Bits = std::conditional_t<sizeof(T) == 2, uint16_t, uint32_t>;
    static constexpr int kPerWord = 4 / sizeof(T);
    uint32_t word[kCount / kPerWord];

    __device__ __forceinline__ T at(int i) const {
        const Bits bits = static_cast<Bits>(word[i / kPerWord] >> (i % kPerWord * 16));
        T element;
        memcpy(static_cast<void*>(&element), &bits, sizeof(T));
        return element;
    }

    __device__ __forceinline__ void put(int i, T element) {
        Bits bits;
        memcpy(&bits, static_cast<const void*>(&element), sizeof(T));
        word[i / kPerWord] = i % kPerWord == 0 ? bits : word[i / kPerWord] | uint32_t{bits} << 16;
    }

    __device__ __forceinline__ static Packed of(const float (&values)[kCount]) {
        Packed packed;
#pragma unroll
        for (int i = 0; i < kCount; ++i) packed.put(i, from_float<T>(values[i]));
        return packed;
    }

    __device__ __forceinline__ static Packed load_strided(const T* from, int64_t stride) {
        Packed packed;
#pragma unroll
        for (int i = 0; i < kCount; ++i) packed.put(i, from[i * stride]);
        return packed;
    }

    __device__ __forceinline__ void store_strided(T* to, int64_t stride) const {
#pragma unroll
        for (int i = 0; i < kCount; ++i) to[i * stride] = at(i);
    }

    __device__ __forceinline__ float operator[](int i) const {
        return to_float(at(i));
    }

    // Keeps the elements packed until here: the compiler would convert all of them early and hold them in twice the
    // registers.
    __device__ __forceinline__ void keep_packed() {
#pragma unroll
        for (uint32_t& part : word) part = ptx::opaque(part);
    }
};

} // namespace lattn::cuda
