// One decode step: S <- g S + k (x) v, o = scale * S^T q, state read and written once.
//
// Grid: one CTA of 128 threads per (row, head). A thread owns 4 neighbouring columns of the state; E / 4 threads cover
// a row of it and the remaining factor of the CTA splits the rows, whose partial outputs are summed in shared memory in
// a fixed order. Loads of four rows are in flight before the first is used.
#pragma once

#include <cstdint>

#include "decode/decode_params.h"
#include "tile/element.cuh"

namespace lattn::cuda {

template <typename T, typename StateT>
struct Decode {
    static constexpr int kColumns = 4;
    static constexpr int kUnroll = 4;
    static constexpr int kMaxColumnThreads = kMaxHeadDim / kColumns;

    struct Shared {
        float q[kMaxHeadDim];
        float k[kMaxHeadDim];
        float output[kDecodeThreads * kColumns];
    };

    struct alignas(kColumns * sizeof(StateT)) Word {
        StateT element[kColumns];
    };

    __device__ static int64_t slot_of(const DecodeParams& p, int64_t row) {
        if (p.slots == nullptr) return row;
        const int64_t slot = p.slots_are_int64 ? static_cast<const int64_t*>(p.slots)[row]
                                               : static_cast<int64_t>(static_cast<const int32_t*>(p.slots)[row]);
        return slot >= 0 && slot < p.slot_count ? slot : -1;
    }

    template <typename U>
    __device__ static U* row_of(const TensorView& view, int64_t batch, int head) {
        return static_cast<U*>(view.data) + batch * view.stride_b + head / view.heads_per_head * view.stride_h;
    }

    __device__ static StateT* state_of(const DecodeState& state, int64_t slot, int head) {
        return static_cast<StateT*>(state.data) + slot * state.stride_slot + head * state.stride_h;
    }

    __device__ static Word load(const DecodeParams& p, const StateT* state, int row, int column) {
        const StateT* from = state + row * p.state_in.stride_d + column * p.state_in.stride_e;
        if (p.state_vectorized) return *reinterpret_cast<const Word*>(from);
        Word word;
#pragma unroll
        for (int i = 0; i < kColumns; ++i) word.element[i] = from[i * p.state_in.stride_e];
        return word;
    }

    __device__ static void store(const DecodeParams& p, StateT* state, int row, int column, const Word& word) {
        StateT* to = state + row * p.state_out.stride_d + column * p.state_out.stride_e;
        if (p.state_vectorized) {
            *reinterpret_cast<Word*>(to) = word;
            return;
        }
#pragma unroll
        for (int i = 0; i < kColumns; ++i) to[i * p.state_out.stride_e] = word.element[i];
    }

    __device__ static void run(const DecodeParams& p) {
        __shared__ Shared shared;
        const int64_t batch = blockIdx.x / p.heads;
        const int head = static_cast<int>(blockIdx.x % p.heads);
        T* output = row_of<T>(p.output, batch, head);
        const int64_t slot = slot_of(p, batch);
        if (slot < 0) {
            for (int e = threadIdx.x; e < p.value_dim; e += kDecodeThreads) output[e] = from_float<T>(0.0f);
            return;
        }

        const T* q = row_of<const T>(p.q, batch, head);
        const T* k = row_of<const T>(p.k, batch, head);
        const T* v = row_of<const T>(p.v, batch, head);
        for (int d = threadIdx.x; d < p.row_dim; d += kDecodeThreads) {
            shared.q[d] = to_float(q[d]);
            shared.k[d] = to_float(k[d]);
        }
        __syncthreads();

        const int column_threads = p.value_dim / kColumns;
        const int row_threads = kDecodeThreads / column_threads;
        const int column = static_cast<int>(threadIdx.x) % column_threads * kColumns;
        const int first_row = static_cast<int>(threadIdx.x) / column_threads;
        float sum[kColumns] = {};
        if (first_row < row_threads) {
            const float decay = expf(-p.decay_rate[head]);
            const StateT* in = state_of(p.state_in, slot, head);
            StateT* out = state_of(p.state_out, slot, head);
            float value[kColumns];
#pragma unroll
            for (int i = 0; i < kColumns; ++i) value[i] = to_float(v[column + i]);

            for (int row = first_row; row < p.row_dim; row += kUnroll * row_threads) {
                Word word[kUnroll];
#pragma unroll
                for (int u = 0; u < kUnroll; ++u)
                    if (row + u * row_threads < p.row_dim) word[u] = load(p, in, row + u * row_threads, column);
#pragma unroll
                for (int u = 0; u < kUnroll; ++u) {
                    const int d = row + u * row_threads;
                    if (d >= p.row_dim) break;
#pragma unroll
                    for (int i = 0; i < kColumns; ++i) {
                        const float updated = decay * to_float(word[u].element[i]) + shared.k[d] * value[i];
                        sum[i] += shared.q[d] * updated;
                        word[u].element[i] = from_float<StateT>(updated);
                    }
                    store(p, out, d, column, word[u]);
                }
            }
            // Row thread r keeps its sums at [r][e].
#pragma unroll
            for (int i = 0; i < kColumns; ++i) shared.output[first_row * p.value_dim + column + i] = sum[i];
        }
        __syncthreads();
        for (int e = threadIdx.x; e < p.value_dim; e += kDecodeThreads) {
            float total = 0.0f;
            for (int r = 0; r < row_threads; ++r) total += shared.output[r * p.value_dim + e];
            output[e] = from_float<T>(p.scale * total);
        }
    }
};

} // namespace lattn::cuda

#define LATTN_DECODE_KERNEL(name, type, state_type)                           \
    extern "C" __global__ void __launch_bounds__(lattn::cuda::kDecodeThreads) \
        name(const __grid_constant__ lattn::cuda::DecodeParams params) {      \
        lattn::cuda::Decode<type, state_type>::run(params);                   \
    }
