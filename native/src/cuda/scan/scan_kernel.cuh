// The chunked scan on mma.sync (sm_80 and newer); scan_params.h has the formula.
//
// Grid: one CTA of 4 warps per (sequence, head, slice of 64 value columns); it walks the chunks in scan order.
// Warp w keeps columns 16w .. 16w+15 of the transposed state X^T, all rows, in fp32 accumulators: 16 x A / 32
// registers. Per chunk of C tokens:
//   1. a, b, c arrive in shared memory by cp.async (two stages where they fit)
//   2. scores  P = mask(g^(i-j) a b^T), C x C, each warp a part, into shared memory
//   3. acc     = g^(i+shift) * a X           X straight from registers: an accumulator tile of X^T is a B fragment
//      acc    += P c;  out = acc
//   4. X^T     = g^m X^T + (w c)^T b         w_j = g^(m-shift-j), products in two parts, so that the state keeps fp32's
//                                            accuracy whatever the element type; Tf32 alone takes one
// Chunks are cut by the token's position in its sequence, so the order of all sums is too.
#pragma once

#include "packed/sequence.cuh"
#include "ptx/dynamic_shared.cuh"
#include "ptx/opaque.cuh"
#include "scan/scan_config.h"
#include "scan/scan_params.h"
#include "tile/any_state.cuh"
#include "tile/decay.cuh"
#include "tile/element.cuh"
#include "tile/load_tile.cuh"
#include "tile/operand.cuh"
#include "tile/transposed_state.cuh"

namespace lattn::cuda {

template <typename T, int kRowDim>
struct Scan {
    using Op = Operand<T>;
    using Scores = typename Op::Scores;
    using Config = ScanConfig<sizeof(T), sizeof(Scores), kRowDim>;
    static constexpr int kChunk = Config::kChunk;
    static constexpr int kRowTiles = kChunk / 16;
    static constexpr int kStateTiles = kRowDim / 8;
    // State tiles that make one B fragment.
    static constexpr int kTilesPerStep = Op::kK / 8;
    // k steps of the state update whose operands are in registers at once: as many as the state leaves room for.
    static constexpr int kUpdateSteps = Op::kInputParts == 2 || kRowDim > 192 ? 1 : kRowDim > 128 ? 2 : 4;

    struct Stage {
        T a[kChunk * Config::kRowLd];
        T b[kChunk * Config::kRowLd];
        T c[kChunk * Config::kValueLd];
    };

    struct alignas(16) Shared {
        Stage stage[Config::kStages];
        Scores scores[kChunk * Config::kScoreLd];
        float power[kChunk + 8];         // g^n, n = 0 .. C
        float update_weight[kChunk + 8]; // update_scale * g^(m-shift-j)
        Sequence sequence;
    };
    static_assert(sizeof(Shared) <= Config::kSharedBytes);

    // What this CTA works on. It is derived anew where it is needed: the registers are the state's.
    struct Job {
        int batch;
        int head;
        int value_begin; // first value column
        int value_cols;  // valid value columns, up to kValueCols
    };

    // A chunk, which begins at token index * kChunk of the sequence.
    struct Chunk {
        int index;
        int tokens;
    };

    using State = float[kStateTiles][4];

    __device__ static const T* head_base(const TensorView& view, const Job& job) {
        return static_cast<const T*>(view.data) + int64_t{job.batch} * view.stride_b +
               job.head / view.heads_per_head * view.stride_h;
    }

    __device__ static Job make_job(const ScanParams& p) {
        const int block = ptx::opaque(static_cast<int>(blockIdx.x));
        const int index = block / p.value_slices;
        const int slice = block % p.value_slices;
        Job job;
        job.batch = index / p.heads;
        job.head = index % p.heads;
        job.value_begin = slice * Config::kValueCols;
        job.value_cols = min(Config::kValueCols, p.value_dim - job.value_begin);
        return job;
    }

    // Computed anew where it is needed, as the job is.
    __device__ static int chunk_count(const Sequence& sequence) {
        return static_cast<int>((ptx::opaque(sequence.tokens) + kChunk - 1) / kChunk);
    }

    __device__ static Chunk make_chunk(const ScanParams& p, const Sequence& sequence, int step) {
        const int index = p.backwards ? chunk_count(sequence) - 1 - step : step;
        return {index, static_cast<int>(min(int64_t{kChunk}, sequence.tokens - int64_t{index} * kChunk))};
    }

    // The chunk's first token in scan order, in the tensors.
    __device__ static int64_t first_token(const ScanParams& p, const Sequence& sequence, const Chunk& chunk) {
        return sequence.first + int64_t{ptx::opaque(chunk.index)} * kChunk + (p.backwards ? chunk.tokens - 1 : 0);
    }

    // The block of states that begins with this chunk, or -1.
    __device__ static int64_t block_of(const ScanParams& p, const Chunk& chunk) {
        const int64_t token = int64_t{ptx::opaque(chunk.index)} * kChunk;
        return token % p.block_size == 0 ? token / p.block_size : -1;
    }

    __device__ static void load_stage(const ScanParams& p, const Sequence& sequence, int step, Stage& stage) {
        const Job job = make_job(p);
        const Chunk chunk = make_chunk(p, sequence, step);
        const int64_t sign = p.backwards ? -1 : 1;
        const int64_t first = first_token(p, sequence, chunk);
        load_tile<T, kChunk, kRowDim, Config::kThreads>(stage.a, head_base(p.a, job) + first * p.a.stride_n,
                                                        sign * p.a.stride_n, chunk.tokens, p.row_dim,
                                                        p.a.vector_aligned);
        load_tile<T, kChunk, kRowDim, Config::kThreads>(stage.b, head_base(p.b, job) + first * p.b.stride_n,
                                                        sign * p.b.stride_n, chunk.tokens, p.row_dim,
                                                        p.b.vector_aligned);
        load_tile<T, kChunk, Config::kValueCols, Config::kThreads>(
            stage.c, head_base(p.c, job) + job.value_begin + first * p.c.stride_n, sign * p.c.stride_n, chunk.tokens,
            job.value_cols, p.c.vector_aligned);
        ptx::cp_async_commit();
    }

    // This CTA's part of a state in memory.
    __device__ static StateSlice<float> state_slice(const ScanParams& p, const StateView& view, int64_t block) {
        const Job job = make_job(p);
        return {view.data + job.batch * view.stride_b + job.head * view.stride_h + block * view.stride_block,
                view.stride_row,
                view.stride_column,
                0,
                p.row_dim,
                job.value_begin,
                p.value_dim};
    }

    __device__ static void write_state(const ScanParams& p, const StateView& view, int64_t block, State& x) {
        for_each_element(state_slice(p, view, block), x, [](float value, float& element) { element = value; });
    }

    __device__ static void add_state(const ScanParams& p, const StateView& view, int64_t block, State& x) {
        for_each_element(state_slice(p, view, block), x, [](float& value, float element) { value += element; });
    }

    // This CTA's part of the state that the sequence starts from, or of the one that it leaves: an entry of `view`, or
    // a slot of the pool where there is one.
    __device__ static AnyStateSlice end_slice(const ScanParams& p, const Sequence& sequence, const StateView& view) {
        const Job job = make_job(p);
        const PackedBatch& packed = p.packed;
        const bool pooled = packed.pool != nullptr;
        const PoolType type = pooled ? packed.pool_type : kPoolFloat32;
        const int64_t units = units_of(type);
        const int64_t stride_entry = pooled ? packed.stride_slot : view.stride_b;
        const int64_t stride_h = pooled ? packed.stride_h : view.stride_h;
        return {
            {static_cast<uint16_t*>(pooled ? packed.pool : static_cast<void*>(view.data)) +
                 units * (sequence.entry * stride_entry + job.head * stride_h),
             units * (pooled ? packed.stride_row : view.stride_row),
             units * (pooled ? packed.stride_column : view.stride_column), 0, p.row_dim, job.value_begin, p.value_dim},
            type};
    }

    __device__ static void read_initial(const ScanParams& p, const Sequence& sequence, State& x) {
        if (sequence.reads_state && (p.initial.data != nullptr || p.packed.pool != nullptr))
            add_any_state(end_slice(p, sequence, p.initial), x);
    }

    __device__ static void write_final(const ScanParams& p, const Sequence& sequence, State& x) {
        if (sequence.writes_state && (p.final.data != nullptr || p.packed.pool != nullptr))
            write_any_state(end_slice(p, sequence, p.final), x);
    }

    static constexpr int kScoreUnroll = Op::kInputParts == 2 ? 1 : 2;

    // P[i][j] = pair_scale * g^(i-j) a_i . b_j for j <= i, else 0. Warps split the tiles of 16 x 16 by rows first.
    __device__ static void compute_scores(const ScanParams& p, const Stage& stage, Shared& shared) {
        constexpr int kWarpsPerRow = Config::kWarps / kRowTiles; // 1 or 2
        constexpr int kPairs = kChunk / 16 / kWarpsPerRow;       // tiles of 16 columns of this warp
        const int warp = threadIdx.x / 32;
        const int row_begin = (warp % kRowTiles) * 16;
        const int pair_begin = (warp / kRowTiles) * kPairs;

        float acc[kPairs][2][4] = {};
#pragma unroll kScoreUnroll
        for (int k = 0; k < kRowDim; k += Op::kK) {
            const auto a = Op::load_a(stage.a + row_begin * Config::kRowLd + k, Config::kRowLd);
#pragma unroll
            for (int pair = 0; pair < kPairs; ++pair) {
                const int column = (pair_begin + pair) * 16;
                if (column > row_begin) continue; // above the diagonal
                const auto b = Op::load_b_nk(stage.b + column * Config::kRowLd + k, Config::kRowLd);
                multiply<T>(acc[pair][0], a, b.tile[0]);
                multiply<T>(acc[pair][1], a, b.tile[1]);
            }
        }

        const int lane = lane_id();
#pragma unroll
        for (int pair = 0; pair < kPairs; ++pair) {
            if ((pair_begin + pair) * 16 > row_begin) continue; // never read
#pragma unroll
            for (int n = 0; n < 2; ++n) {
#pragma unroll
                for (int i = 0; i < 4; ++i) {
                    const int row = row_begin + lane / 4 + (i / 2) * 8;
                    const int column = (pair_begin + pair) * 16 + n * 8 + (lane % 4) * 2 + i % 2;
                    const int distance = row - column;
                    const float weight = distance < 0 ? 0.0f : p.pair_scale * shared.power[max(distance, 0)];
                    shared.scores[row * Config::kScoreLd + column] = Op::to_scores(acc[pair][n][i] * weight);
                }
            }
        }
    }

    // Rows of the output are worked on in groups of this many tiles of 16: all at once while the state leaves room.
    static constexpr int kOutputTiles = Op::kInputParts == 1 && kRowDim <= 128 ? kRowTiles : 1;
    using Output = float[kOutputTiles][2][4];

    // acc = read_scale * g^(i+shift) a X for the rows from tile `first` on
    __device__ static void read_state(const ScanParams& p, const Stage& stage, const Shared& shared, const State& x,
                                      int first, Output& acc) {
#pragma unroll
        for (int step = 0; step < kRowDim / Op::kK; ++step) {
            const auto b = Op::template from_transposed_accumulators<Op::kReadParts>(&x[step * kTilesPerStep]);
#pragma unroll
            for (int m = 0; m < kOutputTiles; ++m) {
                const auto a = Op::load_a(stage.a + (first + m) * 16 * Config::kRowLd + step * Op::kK, Config::kRowLd);
                multiply<T>(acc[m][0], a, b.tile[0]);
                multiply<T>(acc[m][1], a, b.tile[1]);
            }
        }
#pragma unroll
        for (int m = 0; m < kOutputTiles; ++m) {
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                const int row = (first + m) * 16 + half * 8 + lane_id() / 4;
                const float weight = p.read_scale * shared.power[row + p.shift];
#pragma unroll
                for (int n = 0; n < 2; ++n) {
                    acc[m][n][2 * half] *= weight;
                    acc[m][n][2 * half + 1] *= weight;
                }
            }
        }
    }

    // acc += P c for the rows from tile `first` on
    __device__ static void add_chunk(const Stage& stage, const Shared& shared, int first, Output& acc) {
        const int column = warp_value_column();
        const int last = (first + kOutputTiles) * 16;
#pragma unroll
        for (int k = 0; k < kChunk; k += Op::kK) {
            if (k >= last) break;
            const auto b = Op::load_b_kn(stage.c + k * Config::kValueLd + column, Config::kValueLd);
#pragma unroll
            for (int m = 0; m < kOutputTiles; ++m) {
                if (k / 16 > first + m) continue; // above the diagonal
                const auto a = Op::load_a(shared.scores + (first + m) * 16 * Config::kScoreLd + k, Config::kScoreLd);
                multiply<T>(acc[m][0], a, b.tile[0]);
                multiply<T>(acc[m][1], a, b.tile[1]);
            }
        }
    }

    template <typename Out>
    __device__ static void write_output(const ScanParams& p, const Sequence& sequence, const Chunk& chunk, int first,
                                        const Output& acc) {
        const Job job = make_job(p);
        const int lane = lane_id();
        const int64_t sign = p.backwards ? -1 : 1;
        const int64_t stride_n = ptx::opaque(p.out.stride_n);
        Out* base = static_cast<Out*>(p.out.data) + job.batch * p.out.stride_b +
                    job.head / p.out.heads_per_head * p.out.stride_h;
#pragma unroll
        for (int m = 0; m < kOutputTiles; ++m) {
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                const int row = (first + m) * 16 + half * 8 + lane / 4;
                if (row >= chunk.tokens) continue;
                Out* out = base + (first_token(p, sequence, chunk) + sign * row) * stride_n;
#pragma unroll
                for (int n = 0; n < 2; ++n) {
                    const int column = job.value_begin + warp_value_column() + n * 8 + (lane % 4) * 2;
                    if (column < p.value_dim)
                        store_pair(out + column, acc[m][n][2 * half], acc[m][n][2 * half + 1], p.out.vector_aligned);
                }
            }
        }
    }

    __device__ static void compute_output(const ScanParams& p, const Chunk& chunk, const Stage& stage,
                                          const Shared& shared, const State& x) {
#pragma unroll 1
        for (int first = 0; first < kRowTiles; first += kOutputTiles) {
            Output acc = {};
            read_state(p, stage, shared, x, first, acc);
            add_chunk(stage, shared, first, acc);
            if (p.out_is_float)
                write_output<float>(p, shared.sequence, chunk, first, acc);
            else
                write_output<T>(p, shared.sequence, chunk, first, acc);
        }
    }

    // X^T = g^m X^T + (w c)^T b
    __device__ static void update_state(const Stage& stage, const Shared& shared, int tokens, State& x) {
        const float decay = shared.power[tokens];
#pragma unroll
        for (int tile = 0; tile < kStateTiles; ++tile) {
#pragma unroll
            for (int i = 0; i < 4; ++i) x[tile][i] *= decay;
        }
        add_products<kChunk, kUpdateSteps>(
            UpdateFactors<T>{stage.c, Config::kValueLd, stage.b, Config::kRowLd, shared.update_weight}, x);
    }

    __device__ static void fill_update_weights(const ScanParams& p, int tokens, Shared& shared) {
        // Beyond the chunk's tokens b and c are zero; any finite weight will do.
        for (int j = threadIdx.x; j < kChunk; j += Config::kThreads)
            shared.update_weight[j] = p.update_scale * shared.power[max(tokens - p.shift - j, 0)];
    }

    __device__ static void run(const ScanParams& p) {
        LATTN_DYNAMIC_SHARED(shared_memory);
        Shared& shared = *reinterpret_cast<Shared*>(shared_memory);
        const bool has_output = p.out.data != nullptr;

        const Sequence& sequence = shared.sequence;
        if (threadIdx.x == 0) shared.sequence = sequence_of(p.packed, p.tokens, make_job(p).batch);
        __syncthreads(); // the sequence is visible

        if (sequence.tokens > 0) {
            load_stage(p, sequence, 0, shared.stage[0]);
            fill_powers<Config::kThreads>(shared.power, kChunk + 1, p.decay_rate[make_job(p).head]);
        }
        State x = {};
        read_initial(p, sequence, x);

        for (int step = 0; step < chunk_count(sequence); ++step) {
            const Chunk chunk = make_chunk(p, sequence, step);
            Stage& stage = shared.stage[step % Config::kStages];
            ptx::cp_async_wait<0>();
            __syncthreads(); // the chunk and the powers are visible; the other stage is free
            if (Config::kStages == 2 && step + 1 < chunk_count(sequence))
                load_stage(p, sequence, step + 1, shared.stage[(step + 1) % Config::kStages]);

            if (p.block_states.data != nullptr && block_of(p, chunk) >= 0)
                write_state(p, p.block_states, block_of(p, chunk), x);

            fill_update_weights(p, chunk.tokens, shared);
            if (has_output) compute_scores(p, stage, shared);
            __syncthreads(); // scores and update weights are visible
            if (has_output) compute_output(p, chunk, stage, shared, x);
            update_state(stage, shared, chunk.tokens, x);

            if (p.block_grads.data != nullptr && block_of(p, chunk) >= 0)
                add_state(p, p.block_grads, block_of(p, chunk), x);
            if (Config::kStages == 1 && step + 1 < chunk_count(sequence)) {
                __syncthreads(); // everyone has read the stage
                load_stage(p, sequence, step + 1, shared.stage[0]);
            }
        }
        write_final(p, sequence, x);
    }
};

} // namespace lattn::cuda

#define LATTN_SCAN_KERNEL(name, type, row_dim)                                  \
    extern "C" __global__ void __launch_bounds__(128, (row_dim) <= 128 ? 2 : 1) \
        name(const __grid_constant__ lattn::cuda::ScanParams params) {          \
        lattn::cuda::Scan<type, row_dim>::run(params);                          \
    }
