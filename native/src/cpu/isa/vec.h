// Vectors of the instruction set that this translation unit is compiled for.
//
// Everything in isa/ lives in the namespace LATTN_CPU_ISA or has internal linkage. An inline function shared between
// the instruction sets, from the standard library say, would be merged by the linker into one copy, and that copy
// could hold AVX-512 code on a processor without it.
#pragma once

#include <stdint.h>
#include <string.h>

#include "common/platform.h"

#if !defined(LATTN_CPU_ISA)
#error "compile the files of isa/ with -DLATTN_CPU_ISA=<instruction set>"
#endif

// A multiply-add of vectors is fused by GCC and Clang wherever the instruction set can. Loops over the lanes of a plain
// struct would be fused in one tile and not in the next, so that a token's bits would depend on the tile it falls into:
// without the extension nothing is fused. (LATTN_CPU_PLAIN_VECTORS checks that path; it wants -ffp-contract=off.)
#if !defined(LATTN_VECTOR_EXTENSIONS)
LATTN_NO_CONTRACTION
#endif

namespace lattn::cpu::LATTN_CPU_ISA {

// kTileRows x kTileVectors accumulators, the vectors of one step and a broadcast must fit the register file.
#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
constexpr int kTileRows = 8;
#elif defined(__AVX2__)
constexpr int kVectorBytes = 32;
constexpr int kTileRows = 6;
#else
constexpr int kVectorBytes = 16;
constexpr int kTileRows = 4;
#endif
constexpr int kTileVectors = 2;

template <typename T>
constexpr int kLanes = kVectorBytes / static_cast<int>(sizeof(T));

#if defined(LATTN_VECTOR_EXTENSIONS)

template <typename T>
struct VecType {
    typedef T type LATTN_VECTOR(kVectorBytes);
};
template <typename T>
using Vec = typename VecType<T>::type;

template <typename T>
LATTN_INLINE Vec<T> broadcast(T value) {
    return value - Vec<T>{};
}

#else

template <typename T>
struct Vec {
    T lane[kLanes<T>];

    T& operator[](int i) { return lane[i]; }
    T operator[](int i) const { return lane[i]; }
    Vec& operator+=(const Vec& b) {
        for (int i = 0; i < kLanes<T>; ++i) lane[i] += b.lane[i];
        return *this;
    }
    Vec& operator*=(const Vec& b) {
        for (int i = 0; i < kLanes<T>; ++i) lane[i] *= b.lane[i];
        return *this;
    }
    friend Vec operator+(Vec a, const Vec& b) { return a += b; }
    friend Vec operator*(Vec a, const Vec& b) { return a *= b; }
};

template <typename T>
LATTN_INLINE Vec<T> broadcast(T value) {
    Vec<T> result;
    for (int i = 0; i < kLanes<T>; ++i) result.lane[i] = value;
    return result;
}

#endif

// Asks for the cache lines of [address, address + bytes).
LATTN_INLINE void prefetch(const void* address, int64_t bytes) {
    for (int64_t i = 0; i < bytes; i += 64) LATTN_PREFETCH(static_cast<const char*>(address) + i);
}

// Of any alignment.
template <typename T>
LATTN_INLINE Vec<T> load(const T* source) {
    Vec<T> result;
    memcpy(&result, source, sizeof(result));
    return result;
}

template <typename T>
LATTN_INLINE void store(T* destination, const Vec<T>& value) {
    memcpy(destination, &value, sizeof(value));
}

// Lane after lane, in double.
template <typename T>
LATTN_INLINE double sum_lanes(const Vec<T>& value) {
    double sum = 0;
    for (int i = 0; i < kLanes<T>; ++i) sum += static_cast<double>(value[i]);
    return sum;
}

#if defined(LATTN_SHUFFLE_VECTORS)

template <int...>
struct Lanes {};
template <int N, int... I>
struct MakeLanes : MakeLanes<N - 1, N - 1, I...> {};
template <int... I>
struct MakeLanes<0, I...> {
    using type = Lanes<I...>;
};

// Swaps the upper right and the lower left of each 2 x 2 group of squares of side `Half`, a above b.
template <int Half, typename T, int... I>
LATTN_INLINE void exchange(Vec<T>& a, Vec<T>& b, Lanes<I...>) {
    constexpr int n = kLanes<T>;
    const Vec<T> upper = LATTN_SHUFFLE_VECTORS(a, b, ((I & Half) == 0 ? I : n + I - Half)...);
    b = LATTN_SHUFFLE_VECTORS(a, b, ((I & Half) == 0 ? I + Half : n + I)...);
    a = upper;
}

template <int Half, typename T>
LATTN_INLINE void transpose_stages(Vec<T> (&rows)[kLanes<T>]) {
    if constexpr (Half > 0) {
        LATTN_UNROLL
        for (int i = 0; i < kLanes<T>; ++i)
            if ((i & Half) == 0) exchange<Half, T>(rows[i], rows[i + Half], typename MakeLanes<kLanes<T>>::type{});
        transpose_stages<Half / 2, T>(rows);
    }
}

// A square block of kLanes x kLanes.
template <typename T>
LATTN_INLINE void transpose_block(T* destination, int64_t ld_destination, const T* source, int64_t ld_source) {
    Vec<T> rows[kLanes<T>];
    LATTN_UNROLL
    for (int i = 0; i < kLanes<T>; ++i) rows[i] = load(source + i * ld_source);
    transpose_stages<kLanes<T> / 2, T>(rows);
    LATTN_UNROLL
    for (int i = 0; i < kLanes<T>; ++i) store(destination + i * ld_destination, rows[i]);
}

#else

template <typename T>
LATTN_INLINE void transpose_block(T* destination, int64_t ld_destination, const T* source, int64_t ld_source) {
    for (int i = 0; i < kLanes<T>; ++i)
        for (int j = 0; j < kLanes<T>; ++j) destination[j * ld_destination + i] = source[i * ld_source + j];
}

#endif

} // namespace lattn::cpu::LATTN_CPU_ISA
