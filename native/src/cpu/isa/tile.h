// Register-blocked matrix products. A tile is R rows of V vectors, held in registers over the whole inner dimension.
// Every element is one chain of multiply-adds in the order of that dimension, whichever tile it falls into.
#pragma once

#include "cpu/isa/vec.h"

namespace lattn::cpu::LATTN_CPU_ISA {

template <typename T>
struct Matrix {
    T* data;
    int64_t ld;

    T* row(int64_t i) const { return data + i * ld; }
};

template <typename T, int R, int V>
using Tile = Vec<T>[R][V];

template <int N>
struct Constant {
    static constexpr int value = N;
};

template <typename T, int R, int V>
LATTN_INLINE void clear(Tile<T, R, V>& tile) {
    LATTN_UNROLL
    for (int r = 0; r < R; ++r) {
        LATTN_UNROLL
        for (int v = 0; v < V; ++v) tile[r][v] = Vec<T>{};
    }
}

// tile += a b, with a[r * a_row + k * a_step] and the rows of b `ldb` apart, k = 0 .. count-1.
template <typename T, int R, int V>
LATTN_INLINE void multiply_add(Tile<T, R, V>& tile, const T* a, int64_t a_row, int64_t a_step, const T* b, int64_t ldb,
                               int64_t count) {
    for (int64_t k = 0; k < count; ++k, a += a_step, b += ldb) {
        Vec<T> b_k[V];
        LATTN_UNROLL
        for (int v = 0; v < V; ++v) b_k[v] = load(b + v * kLanes<T>);
        LATTN_UNROLL
        for (int r = 0; r < R; ++r) {
            const Vec<T> a_rk = broadcast(a[r * a_row]);
            LATTN_UNROLL
            for (int v = 0; v < V; ++v) tile[r][v] += a_rk * b_k[v];
        }
    }
}

// tile += tril(a) b for the R x R square a: what lies above its diagonal is not read.
template <typename T, int R, int V>
LATTN_INLINE void multiply_add_lower(Tile<T, R, V>& tile, const T* a, int64_t lda, const T* b, int64_t ldb) {
    LATTN_UNROLL
    for (int k = 0; k < R; ++k) {
        LATTN_UNROLL
        for (int r = k; r < R; ++r) {
            const Vec<T> a_rk = broadcast(a[r * lda + k]);
            LATTN_UNROLL
            for (int v = 0; v < V; ++v) tile[r][v] += a_rk * load(b + k * ldb + v * kLanes<T>);
        }
    }
}

// Calls tile(Constant<R>, i) for tiles of R rows from i on that cover rows begin .. end-1.
template <typename F>
LATTN_INLINE void for_row_tiles(int64_t begin, int64_t end, F tile) {
    int64_t i = begin;
    for (; i + kTileRows <= end; i += kTileRows) tile(Constant<kTileRows>{}, i);
    if constexpr (kTileRows > 4) {
        if (i + 4 <= end) {
            tile(Constant<4>{}, i);
            i += 4;
        }
    }
    if (i + 2 <= end) {
        tile(Constant<2>{}, i);
        i += 2;
    }
    if (i < end) tile(Constant<1>{}, i);
}

// Calls panel(Constant<V>, j) for panels of V vectors from column j on that cover `columns`, the last one padded.
template <typename T, typename F>
LATTN_INLINE void for_column_panels(int64_t columns, F panel) {
    constexpr int64_t width = kTileVectors * kLanes<T>;
    int64_t j = 0;
    for (; j + width - kLanes<T> < columns; j += width) panel(Constant<kTileVectors>{}, j);
    if (j < columns) panel(Constant<1>{}, j);
}

} // namespace lattn::cpu::LATTN_CPU_ISA
