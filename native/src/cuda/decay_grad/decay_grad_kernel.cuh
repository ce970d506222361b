// The gradient of the decay rate on mma.sync (sm_80 and newer); decay_grad_params.h has the formula.
//
// Grid: one CTA of 4 warps per (head, batch, 64 columns of D, 64 columns of E); it walks the chunks forwards.
// Warp w keeps columns 16w .. 16w+15 of S^T and R^T, 64 rows, in fp32 accumulators. Per chunk of m tokens:
//   sum += sum_i  g^(i+1) do_i . (q_i^T (R - (i+1) S))               read: states in two parts
//   sum -= sum_ij (i-j) g^(i-j) (q_i . k_j)(do_i . v_j),  j <= i     pairs
//   R^T  = g^m (R^T - m S^T) - sum_j (m-1-j) g^(m-1-j) v_j (x) k_j
//   S^T  = g^m S^T + sum_j g^(m-1-j) v_j (x) k_j
// Nothing here is a difference of large sums, so slow and fast heads are equally exact.
#pragma once

#include "decay_grad/decay_grad_config.h"
#include "decay_grad/decay_grad_params.h"
#include "packed/sequence.cuh"
#include "ptx/dynamic_shared.cuh"
#include "ptx/opaque.cuh"
#include "tile/decay.cuh"
#include "tile/element.cuh"
#include "tile/load_tile.cuh"
#include "tile/operand.cuh"
#include "tile/transposed_state.cuh"

namespace lattn::cuda {

template <typename T>
struct DecayGrad {
    using Op = Operand<T>;
    using Config = DecayGradConfig<sizeof(T)>;
    static constexpr int kChunk = Config::kChunk;
    static constexpr int kLd = Config::kLd;
    static constexpr int kSlice = Config::kSlice;
    static constexpr int kRowTiles = kChunk / 16;
    static constexpr int kStateTiles = kSlice / 8;
    static constexpr int kTilesPerStep = Op::kK / 8;

    struct Stage {
        T q[kChunk * kLd];
        T k[kChunk * kLd];
        T v[kChunk * kLd];
        T grad_output[kChunk * kLd];
    };

    struct alignas(16) Shared {
        Stage stage[Config::kStages];
        float power[kChunk + 8];
        float state_weight[kChunk + 8];   // g^(m-1-j)
        float tangent_weight[kChunk + 8]; // -(m-1-j) g^(m-1-j)
        double warp_sum[Config::kWarps];
        Sequence sequence;
    };
    static_assert(sizeof(Shared) <= Config::kSharedBytes);

    // What this CTA works on. It is derived anew where it is needed: the registers are the states'.
    struct Job {
        int batch;
        int head;
        int row_begin, row_cols;     // of D
        int value_begin, value_cols; // of E
    };

    using State = float[kStateTiles][4];

    // blockIdx.x counts partial sums: [H, B, row_slices, value_slices].
    __device__ static Job make_job(const DecayGradParams& p) {
        int index = ptx::opaque(static_cast<int>(blockIdx.x));
        Job job;
        job.value_begin = index % p.value_slices * kSlice;
        index /= p.value_slices;
        job.row_begin = index % p.row_slices * kSlice;
        index /= p.row_slices;
        job.batch = index % static_cast<int>(p.batch);
        job.head = index / static_cast<int>(p.batch);
        job.row_cols = min(kSlice, p.row_dim - job.row_begin);
        job.value_cols = min(kSlice, p.value_dim - job.value_begin);
        return job;
    }

    // The chunk that begins at token `begin` of the tensors: columns first_column .. first_column + columns - 1 of one
    // tensor.
    __device__ static void load_columns(T* tile, const TensorView& view, const Job& job, int64_t begin, int tokens,
                                        int first_column, int columns) {
        const T* source = static_cast<const T*>(view.data) + int64_t{job.batch} * view.stride_b +
                          job.head / view.heads_per_head * view.stride_h + begin * view.stride_n + first_column;
        load_tile<T, kChunk, kSlice, Config::kThreads>(tile, source, view.stride_n, tokens, columns,
                                                       view.vector_aligned);
    }

    __device__ static int chunk_tokens(const Sequence& sequence, int64_t index) {
        return static_cast<int>(min(static_cast<int64_t>(kChunk), sequence.tokens - index * kChunk));
    }

    __device__ static void load_stage(const DecayGradParams& p, const Sequence& sequence, int64_t index, Stage& stage) {
        const Job job = make_job(p);
        const int tokens = chunk_tokens(sequence, index);
        const int64_t begin = sequence.first + index * kChunk;
        load_columns(stage.q, p.q, job, begin, tokens, job.row_begin, job.row_cols);
        load_columns(stage.k, p.k, job, begin, tokens, job.row_begin, job.row_cols);
        load_columns(stage.v, p.v, job, begin, tokens, job.value_begin, job.value_cols);
        load_columns(stage.grad_output, p.grad_output, job, begin, tokens, job.value_begin, job.value_cols);
        ptx::cp_async_commit();
    }

    // This CTA's part of a state in memory.
    __device__ static StateSlice<const float> state_slice(const DecayGradParams& p, const StateView& view,
                                                          int64_t block) {
        const Job job = make_job(p);
        return {view.data + job.batch * view.stride_b + job.head * view.stride_h + block * view.stride_block,
                view.stride_row,
                view.stride_column,
                job.row_begin,
                p.row_dim,
                job.value_begin,
                p.value_dim};
    }

    __device__ static float dot(const DecayGradParams& p, const StateView& view, int64_t block, State& r) {
        float sum = 0.0f;
        for_each_element(state_slice(p, view, block), r, [&](float value, float grad) { sum += value * grad; });
        return sum;
    }

    // sum_i g^(i+1) do_i . (q_i^T (R - (i+1) S)) over this warp's columns of E.
    __device__ static float read_states(const Stage& stage, const Shared& shared, const State& s, const State& r) {
        const int lane = lane_id();
        const int warp_column = warp_value_column();
        float sum = 0.0f;
        // One row tile at a time: both states and their split fragments leave no room for more accumulators.
#pragma unroll 1
        for (int m = 0; m < kRowTiles; ++m) {
            float from_s[2][4] = {};
            float from_r[2][4] = {};
#pragma unroll
            for (int step = 0; step < kSlice / Op::kK; ++step) {
                const auto b_s = Op::template from_transposed_accumulators<2>(&s[step * kTilesPerStep]);
                const auto b_r = Op::template from_transposed_accumulators<2>(&r[step * kTilesPerStep]);
                const auto a = Op::load_a(stage.q + m * 16 * kLd + step * Op::kK, kLd);
#pragma unroll
                for (int n = 0; n < 2; ++n) {
                    multiply<T>(from_s[n], a, b_s.tile[n]);
                    multiply<T>(from_r[n], a, b_r.tile[n]);
                }
            }
#pragma unroll
            for (int n = 0; n < 2; ++n) {
#pragma unroll
                for (int i = 0; i < 4; ++i) {
                    const int row = m * 16 + lane / 4 + (i / 2) * 8;
                    const int column = warp_column + n * 8 + (lane % 4) * 2 + i % 2;
                    const float tangent = from_r[n][i] - static_cast<float>(row + 1) * from_s[n][i];
                    sum += shared.power[row + 1] * to_float(stage.grad_output[row * kLd + column]) * tangent;
                }
            }
        }
        return sum;
    }

    // sum_ij (i-j) g^(i-j) (q_i . k_j)(do_i . v_j) over the tiles of this warp.
    __device__ static float pairs(const Stage& stage, const Shared& shared) {
        constexpr int kWarpsPerRow = Config::kWarps / kRowTiles;
        constexpr int kPairs = kChunk / 16 / kWarpsPerRow;
        const int lane = lane_id();
        const int warp = threadIdx.x / 32;
        const int row_begin = (warp % kRowTiles) * 16;
        float sum = 0.0f;
#pragma unroll 1
        for (int pair = 0; pair < kPairs; ++pair) {
            const int column_begin = ((warp / kRowTiles) * kPairs + pair) * 16;
            if (column_begin > row_begin) continue;
            float scores[2][4] = {};
            float grads[2][4] = {};
#pragma unroll
            for (int k = 0; k < kSlice; k += Op::kK) {
                const auto q = Op::load_a(stage.q + row_begin * kLd + k, kLd);
                const auto grad = Op::load_a(stage.grad_output + row_begin * kLd + k, kLd);
                const auto key = Op::load_b_nk(stage.k + column_begin * kLd + k, kLd);
                const auto value = Op::load_b_nk(stage.v + column_begin * kLd + k, kLd);
#pragma unroll
                for (int n = 0; n < 2; ++n) {
                    multiply<T>(scores[n], q, key.tile[n]);
                    multiply<T>(grads[n], grad, value.tile[n]);
                }
            }
#pragma unroll
            for (int n = 0; n < 2; ++n) {
#pragma unroll
                for (int i = 0; i < 4; ++i) {
                    const int row = row_begin + lane / 4 + (i / 2) * 8;
                    const int column = column_begin + n * 8 + (lane % 4) * 2 + i % 2;
                    const int distance = max(row - column, 0); // 0 removes what lies above the diagonal
                    sum += static_cast<float>(distance) * shared.power[distance] * scores[n][i] * grads[n][i];
                }
            }
        }
        return sum;
    }

    __device__ static void update_states(const Stage& stage, const Shared& shared, int tokens, State& s, State& r) {
        const float decay = shared.power[tokens];
        const float count = static_cast<float>(tokens);
#pragma unroll
        for (int tile = 0; tile < kStateTiles; ++tile) {
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                r[tile][i] = decay * (r[tile][i] - count * s[tile][i]);
                s[tile][i] *= decay;
            }
        }
        constexpr int kSteps = 2;
        add_products<kChunk, kSteps>(UpdateFactors<T>{stage.v, kLd, stage.k, kLd, shared.tangent_weight}, r);
        add_products<kChunk, kSteps>(UpdateFactors<T>{stage.v, kLd, stage.k, kLd, shared.state_weight}, s);
    }

    __device__ static void fill_weights(int tokens, Shared& shared) {
        for (int j = threadIdx.x; j < kChunk; j += Config::kThreads) {
            const int distance = max(tokens - 1 - j, 0); // beyond the chunk k and v are zero
            shared.state_weight[j] = shared.power[distance];
            shared.tangent_weight[j] = -static_cast<float>(distance) * shared.power[distance];
        }
    }

    // Sums over the CTA in a fixed order.
    __device__ static void write_partial(const DecayGradParams& p, Shared& shared, double sum) {
#pragma unroll
        for (int offset = 16; offset > 0; offset /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, offset);
        if (lane_id() == 0) shared.warp_sum[threadIdx.x / 32] = sum;
        __syncthreads();
        if (threadIdx.x == 0) {
            double total = 0.0;
            for (int warp = 0; warp < Config::kWarps; ++warp) total += shared.warp_sum[warp];
            p.partial[blockIdx.x] = total;
        }
    }

    __device__ static void run(const DecayGradParams& p) {
        LATTN_DYNAMIC_SHARED(shared_memory);
        Shared& shared = *reinterpret_cast<Shared*>(shared_memory);
        const Sequence& sequence = shared.sequence;
        if (threadIdx.x == 0) shared.sequence = sequence_of(p.packed, p.tokens, make_job(p).batch);
        __syncthreads(); // the sequence is visible
        const int64_t chunks = (sequence.tokens + kChunk - 1) / kChunk;

        State s = {};
        State r = {};
        double sum = 0.0;
        if (p.initial.data != nullptr)
            for_each_element(state_slice(p, p.initial, 0), s, [](float& value, float element) { value = element; });
        if (chunks > 0) load_stage(p, sequence, 0, shared.stage[0]);
        if (chunks > 0) fill_powers<Config::kThreads>(shared.power, kChunk + 1, p.decay_rate[make_job(p).head]);

        for (int64_t index = 0; index < chunks; ++index) {
            const int64_t begin = index * kChunk;
            const int tokens = chunk_tokens(sequence, index);
            const Stage& stage = shared.stage[index % 2];
            ptx::cp_async_wait<0>();
            __syncthreads(); // the chunk and the powers are visible; the other stage is free
            if (index + 1 < chunks) load_stage(p, sequence, index + 1, shared.stage[(index + 1) % 2]);
            fill_weights(tokens, shared);

            if (p.block_grads.data != nullptr && begin % p.block_size == 0)
                sum += dot(p, p.block_grads, begin / p.block_size, r);
            sum += static_cast<double>(p.scale) * (read_states(stage, shared, s, r) - pairs(stage, shared));
            __syncthreads(); // weights are visible
            update_states(stage, shared, tokens, s, r);
        }
        if (p.final_grad.data != nullptr) sum += dot(p, p.final_grad, 0, r);
        write_partial(p, shared, sum);
    }
};

} // namespace lattn::cuda

#define LATTN_DECAY_GRAD_KERNEL(name, type)                                 \
    extern "C" __global__ void __launch_bounds__(128, 2)                    \
        name(const __grid_constant__ lattn::cuda::DecayGradParams params) { \
        lattn::cuda::DecayGrad<type>::run(params);                          \
    }
