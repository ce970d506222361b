// The matrix products of a chunk. All operands are packed and small, so that column panels, which stay in the L1 cache
// while the row tiles pass, are all the blocking there is.
#pragma once

#include "cpu/isa/chunk.h"

namespace lattn::cpu::LATTN_CPU_ISA {

// out_ij = weights(i - j) (a_i . b_j) for j <= i, zero to the right of the diagonal as far as it is written at all.
template <typename T>
void causal_scores(Matrix<T> out, Matrix<T> a, Matrix<T> b_transposed, const T* weights, int64_t tokens,
                   int64_t inner) {
    for_column_panels<T>(tokens, [&](auto vectors, int64_t j) {
        constexpr int V = decltype(vectors)::value;
        for_row_tiles(j, tokens, [&](auto rows, int64_t i) {
            constexpr int R = decltype(rows)::value;
            Tile<T, R, V> tile;
            clear<T, R, V>(tile);
            multiply_add<T, R, V>(tile, a.row(i), a.ld, 1, b_transposed.data + j, b_transposed.ld, inner);
            LATTN_UNROLL
            for (int r = 0; r < R; ++r) {
                const T* row_weights = weights + (kChunk - 1 - (i + r) + j);
                LATTN_UNROLL
                for (int v = 0; v < V; ++v)
                    store(out.row(i + r) + j + v * kLanes<T>, tile[r][v] * load(row_weights + v * kLanes<T>));
            }
        });
    });
}

// sum += partner . weight * tile, lane by lane.
template <typename T, int R, int V>
LATTN_INLINE void contract(Vec<T>& sum, const Tile<T, R, V>& tile, const T* weights, Matrix<T> partner, int64_t i,
                           int64_t j) {
    LATTN_UNROLL
    for (int r = 0; r < R; ++r) {
        const Vec<T> weight = broadcast(weights[i + r]);
        LATTN_UNROLL
        for (int v = 0; v < V; ++v) sum += tile[r][v] * load(partner.row(i + r) + j + v * kLanes<T>) * weight;
    }
}

// The tangent of what the state contributes to out_i, contracted with partner_i:
// sum_i partner_i . w_i (R - (i+1) S)^T x_i, w_i the decay of the state at token i.
template <typename T>
double state_tangent_term(const Chunk<T>& chunk, const Member<T>& member, const T* state_weights, int64_t inner,
                          int64_t columns) {
    T counted_weights[kChunk];
    for (int64_t i = 0; i < chunk.tokens; ++i) counted_weights[i] = static_cast<T>(-(i + 1)) * state_weights[i];
    Vec<T> sum = {};
    for_column_panels<T>(columns, [&](auto vectors, int64_t j) {
        constexpr int V = decltype(vectors)::value;
        for_row_tiles(0, chunk.tokens, [&](auto rows, int64_t i) {
            constexpr int R = decltype(rows)::value;
            Tile<T, R, V> tile;
            clear<T, R, V>(tile);
            multiply_add<T, R, V>(tile, chunk.x.row(i), chunk.x.ld, 1, member.tangent.data + j, member.tangent.ld,
                                  inner);
            contract<T, R, V>(sum, tile, state_weights, chunk.partner, i, j);
            clear<T, R, V>(tile);
            multiply_add<T, R, V>(tile, chunk.x.row(i), chunk.x.ld, 1, member.state.data + j, member.state.ld, inner);
            contract<T, R, V>(sum, tile, counted_weights, chunk.partner, i, j);
        });
    });
    return sum_lanes<T>(sum);
}

// - sum_{j<=i} (i-j) p_ij (partner_i . z_j), with the weighted scores p.
template <typename T>
double intra_tangent_term(const Chunk<T>& chunk, int64_t columns) {
    T minus_distance[2 * kChunk];
    for (int64_t t = 0; t < 2 * kChunk; ++t) minus_distance[t] = t < kChunk ? static_cast<T>(t - (kChunk - 1)) : T(0);
    causal_scores(chunk.partner_scores, chunk.partner, chunk.z_transposed, minus_distance, chunk.tokens, columns);
    double sum = 0;
    for (int64_t i = 0; i < chunk.tokens; ++i) {
        Vec<T> row_sum = {};
        for (int64_t j = 0; j <= i; j += kLanes<T>)
            row_sum += load(chunk.scores.row(i) + j) * load(chunk.partner_scores.row(i) + j);
        sum += sum_lanes<T>(row_sum);
    }
    return sum;
}

// out_i = state_weights[i] S^T x_i + sum_{j<=i} p_ij z_j
template <typename T>
void outputs(const Chunk<T>& chunk, Matrix<T> state, const T* state_weights, int64_t inner, int64_t columns) {
    for_column_panels<T>(columns, [&](auto vectors, int64_t j) {
        constexpr int V = decltype(vectors)::value;
        for_row_tiles(0, chunk.tokens, [&](auto rows, int64_t i) {
            constexpr int R = decltype(rows)::value;
            Tile<T, R, V> tile;
            clear<T, R, V>(tile);
            if (!chunk.state_is_zero) {
                multiply_add<T, R, V>(tile, chunk.x.row(i), chunk.x.ld, 1, state.data + j, state.ld, inner);
                LATTN_UNROLL
                for (int r = 0; r < R; ++r) {
                    const Vec<T> weight = broadcast(state_weights[i + r]);
                    LATTN_UNROLL
                    for (int v = 0; v < V; ++v) tile[r][v] *= weight;
                }
            }
            multiply_add<T, R, V>(tile, chunk.scores.row(i), chunk.scores.ld, 1, chunk.z.data + j, chunk.z.ld, i);
            multiply_add_lower<T, R, V>(tile, chunk.scores.row(i) + i, chunk.scores.ld, chunk.z.row(i) + j, chunk.z.ld);
            LATTN_UNROLL
            for (int r = 0; r < R; ++r) {
                T* destination = chunk.output.row(i + r) + j;
                LATTN_UNROLL
                for (int v = 0; v < V; ++v) {
                    if (chunk.accumulate) tile[r][v] += load(destination + v * kLanes<T>);
                    store(destination + v * kLanes<T>, tile[r][v]);
                }
            }
        });
    });
}

// S <- factor S + other_factor other + y^T z_weighted
template <typename T>
void update(Matrix<T> state, T factor, Matrix<T> other, T other_factor, const Chunk<T>& chunk, int64_t inner,
            int64_t columns) {
    for_column_panels<T>(columns, [&](auto vectors, int64_t j) {
        constexpr int V = decltype(vectors)::value;
        for_row_tiles(0, inner, [&](auto rows, int64_t k) {
            constexpr int R = decltype(rows)::value;
            Tile<T, R, V> tile;
            LATTN_UNROLL
            for (int r = 0; r < R; ++r) {
                LATTN_UNROLL
                for (int v = 0; v < V; ++v) {
                    const int64_t column = j + v * kLanes<T>;
                    tile[r][v] = load(state.row(k + r) + column) * broadcast(factor);
                    if (other.data != nullptr) tile[r][v] += load(other.row(k + r) + column) * broadcast(other_factor);
                }
            }
            multiply_add<T, R, V>(tile, chunk.y.data + k, 1, chunk.y.ld, chunk.z_weighted.data + j, chunk.z_weighted.ld,
                                  chunk.tokens);
            LATTN_UNROLL
            for (int r = 0; r < R; ++r) {
                LATTN_UNROLL
                for (int v = 0; v < V; ++v) store(state.row(k + r) + j + v * kLanes<T>, tile[r][v]);
            }
        });
    });
}

} // namespace lattn::cpu::LATTN_CPU_ISA
