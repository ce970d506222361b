// A transposed state X^T in accumulators: each of 4 warps holds 16 of 64 value columns, as kTiles tiles of 16 x 8 over
// the rows of X.
#pragma once

#include <cstdint>

#include "ptx/opaque.cuh"
#include "tile/operand.cuh"

namespace lattn::cuda {

// First of this warp's value columns within the CTA's.
__device__ __forceinline__ int warp_value_column() {
    return (threadIdx.x / 32) * 16;
}

// A state [rows, columns] in memory and where the CTA's part of it begins.
template <typename Element>
struct StateSlice {
    Element* data;
    int64_t stride_row, stride_column;
    int first_row, rows;
    int first_column, columns;
};

// Calls visit(value, element) for every element of this warp's part that the state has.
template <int kTiles, typename Element, typename Visit>
__device__ __forceinline__ void for_each_element(const StateSlice<Element>& state, float (&x)[kTiles][4], Visit visit) {
    const int lane = lane_id();
    const int first_row = state.first_row + (lane % 4) * 2;
    const int column = state.first_column + warp_value_column() + lane / 4;
    const int64_t stride_row = ptx::opaque(state.stride_row);
    const int64_t stride_column = ptx::opaque(state.stride_column);
    Element* at = state.data + first_row * stride_row + column * stride_column;
#pragma unroll
    for (int tile = 0; tile < kTiles; ++tile) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            if (tile * 8 + first_row + i % 2 < state.rows && column + (i / 2) * 8 < state.columns)
                visit(x[tile][i], at[(i % 2) * stride_row + (i / 2) * 8 * stride_column]);
        }
        at = ptx::opaque(at + 8 * stride_row);
    }
}

// A chunk's factors of a state update in shared memory.
template <typename T>
struct UpdateFactors {
    const T* value; // [tokens][value_ld]: the CTA's value columns
    int value_ld;
    const T* row; // [tokens][row_ld]
    int row_ld;
    const float* weight; // [tokens]
};

// X^T += (weight value)^T row over kChunk tokens. Products of kSteps k steps are summed before they are added to the
// state, so that the matrix unit's truncating accumulation never runs over the whole sequence.
template <int kChunk, int kSteps, typename T, int kTiles>
__device__ __forceinline__ void add_products(const UpdateFactors<T>& factors, float (&x)[kTiles][4]) {
    using Op = Operand<T>;
    static_assert(kChunk % (kSteps * Op::kK) == 0);
    const T* value = factors.value + warp_value_column();
#pragma unroll 1
    for (int first = 0; first < kChunk; first += kSteps * Op::kK) {
        FragmentA<Op::kUpdateParts> a[kSteps];
#pragma unroll
        for (int step = 0; step < kSteps; ++step) {
            const int k = first + step * Op::kK;
            a[step] = Op::load_a_km_weighted(value + k * factors.value_ld, factors.value_ld, factors.weight + k);
        }
#pragma unroll
        for (int tile = 0; tile < kTiles; tile += 2) {
            float sum[2][4] = {};
#pragma unroll
            for (int step = 0; step < kSteps; ++step) {
                const int k = first + step * Op::kK;
                const auto b = Op::load_b_kn(factors.row + k * factors.row_ld + tile * 8, factors.row_ld);
                multiply<T>(sum[0], a[step], b.tile[0]);
                multiply<T>(sum[1], a[step], b.tile[1]);
            }
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                x[tile][i] += sum[0][i];
                x[tile + 1][i] += sum[1][i];
            }
        }
    }
}

} // namespace lattn::cuda
