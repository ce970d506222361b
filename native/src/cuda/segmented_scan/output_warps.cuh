// The output warps of the segmented scan: P = mask(g^(i-j)) a b^T, a X, out = g^(i+1) a X + P c; through shared memory
// to the output. Each of kOutputGroups warpgroups takes every kOutputGroups'th chunk.
#pragma once

#include "ptx/elect.cuh"
#include "ptx/lane.cuh"
#include "ptx/ldmatrix.cuh"
#include "ptx/opaque.cuh"
#include "ptx/stmatrix.cuh"
#include "ptx/tensor_copy.cuh"
#include "ptx/wgmma.cuh"
#include "segmented_scan/layout.cuh"

namespace lattn::cuda {

template <typename T, int kRowDim, bool kPacked>
struct OutputWarps : ScanLayout<T, kRowDim, 0, kPacked> {
    using Layout = ScanLayout<T, kRowDim, 0, kPacked>;
    using Layout::kChunk;
    using Layout::kRowSteps;
    using Layout::kStages;
    using Layout::kTileBytes;
    using Layout::kTokenSteps;
    using typename Layout::ChunkTile;
    using typename Layout::Config;
    using typename Layout::Current;
    using typename Layout::Element;
    using typename Layout::Job;
    using typename Layout::OperandA;
    using typename Layout::Params;
    using typename Layout::Shared;
    using ByRow = ptx::Wgmma<T, ptx::BOrder::kKContiguous>;
    using ByColumn = ptx::Wgmma<T, ptx::BOrder::kNContiguous>;
    using Rows = OperandA[kRowSteps];
    static constexpr int kBuffers = Config::kOutputBuffers / Config::kOutputGroups; // of a group's output

    __device__ static void load_rows(const char* a, Rows& rows) {
        const uint32_t base = ptx::shared_address(a);
        const int row = warp_row();
#pragma unroll
        for (int step = 0; step < kRowSteps; ++step)
            ptx::ldmatrix_x4(rows[step], Layout::part_address(base, row, step * 2));
    }

    // product = rows x^T for tiles x of 64 rows, not waited for. adds: it is added; if this is never true and the
    // compiler cannot know it, the product takes the registers of what was there before.
    __device__ static void multiply_rows(const Rows& rows, const char* x, ChunkTile& product, bool adds = false) {
        const uint64_t operand = ptx::wgmma_operand(ptx::shared_address(x), kTileBytes);
        ptx::wgmma_fence();
#pragma unroll
        for (int step = 0; step < kRowSteps; ++step)
            ByRow::multiply(product, rows[step], ptx::wgmma_operand_at(operand, step / 4 * kTileBytes + step % 4 * 32),
                            step > 0 || adds);
        ptx::wgmma_commit();
    }

    // out += weighted c, not waited for.
    __device__ static void add_values(const OperandA (&weighted)[kTokenSteps], const char* c, ChunkTile& out) {
        const uint64_t operand = ptx::wgmma_operand(ptx::shared_address(c), kTileBytes);
        ptx::wgmma_fence();
#pragma unroll
        for (int step = 0; step < kTokenSteps; ++step)
            ByColumn::multiply(out, weighted[step], ptx::wgmma_operand_at(operand, step * 2048), true);
        ptx::wgmma_commit();
    }

    // Weights of this thread's elements of a chunk's tiles, the same in every chunk of a job. The distance of an
    // element's tokens follows from the column within its tile of 8 columns, and from half - tile, half of its 16 rows.
    struct Weights {
        float rate;       // of a packed batch's job it is read again
        float pair[9][2]; // g^distance where it is not negative: [half - tile + 7][column % 2]

        __device__ Weights(const CallScan& call, float rate_) : rate(rate_) {
            // Each lane forms one of every 32 distances that the warp needs of two neighbouring i, and takes its own
            // from other lanes.
            const int lane = static_cast<int>(this_thread() % 32);
            const int later = lane / 4 - lane % 4 * 2;
#pragma unroll
            for (int part = 0; part < 5; ++part) {
                const int formed_later = warp_row() - part * 16 + lane - 8;
                const int distance = call.backwards ? -formed_later : formed_later;
                float formed = call.scale * expf(-rate * static_cast<float>(max(distance, 0)));
                if (distance < 0) formed = 0.0f;
#pragma unroll
                for (int i = 8 - 2 * part; i >= max(7 - 2 * part, 0); --i) {
#pragma unroll
                    for (int column = 0; column < 2; ++column)
                        pair[i][column] = __shfl_sync(0xffffffffu, formed, later - column + (i % 2 == 0 ? 16 : 8));
                }
            }
        }

        __device__ float of_pair(int i) const {
            return pair[i / 2 % 2 - i / 4 + 7][i % 2];
        }

        // g^(i+shift) of this thread's two rows of a chunk of so many tokens.
        __device__ void of_state(const Current& current, int tokens, float (&weight)[2]) const {
            const CallScan& call = current.call();
            const float its_rate = kPacked ? current.rate() : rate;
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                const int row = first_row() + half * 8;
                const int steps = call.backwards ? max(tokens - 1 - row, 0) : row + 1;
                weight[half] = call.scale * expf(-its_rate * static_cast<float>(steps));
            }
        }

        __device__ static int first_row() {
            return warp_row() + static_cast<int>(this_thread() % 32 / 4);
        }
    };

    // What follows from them is not kept in registers from one chunk to the next.
    __device__ static unsigned this_thread() {
        return ptx::opaque(threadIdx.x);
    }
    __device__ static int this_warp() {
        return ptx::of_first_lane(static_cast<int>(this_thread() / 32));
    }
    __device__ static int warp_row() {
        return static_cast<int>(this_thread() / 32 % 4 * 16);
    }

    __device__ static void multiply_rows_by(ChunkTile& tile, const float (&factor)[2]) {
#pragma unroll
        for (int i = 0; i < 32; ++i) tile[i] *= factor[i / 2 % 2];
    }

    // Powers of two of this thread's two rows of a chunk's tile.
    struct RowScale {
        float scale[2];

        __device__ void multiply(ChunkTile& tile) const { multiply_rows_by(tile, scale); }

        __device__ void divide(ChunkTile& tile) const {
            const float inverse[2] = {inverse_power_of_two(scale[0]), inverse_power_of_two(scale[1])};
            multiply_rows_by(tile, inverse);
        }
    };

    // Divides every row by its scale. A row of small scores is not brought up by more than 2^24, so that the other part
    // of the output, which takes the same factor, cannot overflow.
    __device__ static RowScale scale_rows(ChunkTile& tile) {
        RowScale rows;
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            float largest = 0.0f;
#pragma unroll
            for (int i = half * 2; i < 32; i += 4) largest = fmaxf(largest, fmaxf(fabsf(tile[i]), fabsf(tile[i + 1])));
            rows.scale[half] = power_of_two(scale_exponent(largest_of_row(largest), -24));
        }
        rows.divide(tile);
        return rows;
    }

    __device__ static void scale_columns(ChunkTile& tile, const float* scale) {
        const int lane = static_cast<int>(this_thread() % 32);
#pragma unroll
        for (int i = 0; i < 32; ++i) tile[i] *= scale[i / 4 * 8 + lane % 4 * 2 + i % 2];
    }

    // Where this warp's 16 rows of a chunk's output go.
    struct Destination {
        int group; // of output warps, from 0
        int row;   // of the chunk: the first of the 16
        int rows;  // that the sequence has from there on; may be none, or more than 16
        int column, token, head, batch;

        __device__ Destination(const Current& current, int chunk) {
            const int warp = this_warp();
            const Job job = current.job();
            group = warp / Layout::kWarpsPerGroup - 1;
            row = warp % Layout::kWarpsPerGroup * Config::kOutputRows;
            rows = Layout::tokens_of(current.sequence(), chunk) - row;
            column = job.value_column();
            token = Layout::first_token(current.call(), current.sequence(), chunk) + row;
            head = job.head;
            batch = job.batch;
        }
    };

    // This warp's rows as fp32.
    __device__ static void store_floats(const CallScan& call, const ChunkTile& values, const Destination& to) {
        const int lane = static_cast<int>(this_thread() % 32);
        const int first_column = to.column + lane % 4 * 2;
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const int row = lane / 4 + half * 8;
            if (row >= to.rows) continue;
            const int64_t at = (int64_t{to.batch} * call.heads + to.head) * call.tokens + to.token + row;
            float* out = call.float_out + at * call.value_dim;
#pragma unroll
            for (int i = 0; i < 32; ++i) {
                const int column = first_column + i / 4 * 8 + i % 2;
                if (i / 2 % 2 == half && column < call.value_dim) out[column] = values[i];
            }
        }
    }

    // This warp's rows, through a tile in shared memory.
    __device__ static void store_output(const Params& params, const CallScan& call, const ChunkTile& values,
                                        Shared& shared, int buffer, const Destination& to) {
        const bool stores = ptx::elect_one();
        if constexpr (kPacked) {
            if (to.rows <= 0) {
                if (stores) ptx::commit_stores(); // the buffers' turns are counted in groups
                return;
            }
        }
        char* const tile = shared.exchange.out[to.group * kBuffers + buffer];
        const uint32_t base = ptx::shared_address(tile);
        // The buffer was read by an earlier chunk's store.
        if (stores) ptx::wait_stores_read<kBuffers - 1>();
        __syncwarp();
#pragma unroll
        for (int step = 0; step < 4; ++step) {
            uint32_t rounded[4];
#pragma unroll
            for (int pair = 0; pair < 4; ++pair)
                rounded[pair] = Element::pack(values[step * 8 + pair * 2], values[step * 8 + pair * 2 + 1]);
            ptx::stmatrix_x4(Layout::part_address(base, to.row, step * 2), rounded);
        }
        ptx::fence_async_shared();
        __syncwarp();
        if (stores) {
            const int rows = min(to.rows, Config::kOutputRows);
            ptx::store_box(params.out.map, tile + to.row * 128,
                           Layout::template box_at<Config::kOutputRows>(to.column, to.token, rows, to.head, to.batch),
                           Layout::keep_of_output(call));
            ptx::commit_stores();
        }
    }

    // Has a part of the state that a job ends with copied to the pool, out of the buffer of X^T that the state warps
    // have filled with it. One thread of the group does so, but each warp waits for the phase, not to skip it.
    __device__ static void start_copy(const Params& params, const Current& current, Shared& shared, int part,
                                      int buffer, uint32_t parity) {
        auto& exchange = shared.exchange;
        const Job job = current.job();
        ptx::mbarrier_wait(exchange.state_full[buffer], parity);
        if (is_first_warp() && ptx::elect_one()) {
#pragma unroll
            for (int columns = 0; columns < 2; ++columns)
                ptx::store_box(params.pool_map, exchange.state[buffer] + columns * Layout::kStateColumnBytes,
                               {job.value_column() + columns * kStateBoxColumns, part * Config::kStatePartRows,
                                job.head, current.sequence().copied_slot});
            ptx::commit_stores();
        }
        __syncwarp();
    }

    // Gives the buffer back once the copy has read it.
    __device__ static void end_copy(Shared& shared, int buffer) {
        if (is_first_warp() && ptx::elect_one()) ptx::wait_stores_read<0>();
        Layout::arrive_at_state(shared.exchange.state_empty[buffer]);
    }

    __device__ static bool is_first_warp() {
        return this_warp() % Layout::kWarpsPerGroup == 0;
    }

    struct Rings {
        typename Layout::template Ring<kStages> stage;
        typename Layout::template Ring<Config::kRowStages> rows;
        typename Layout::template Ring<Config::kStateBuffers> state;
        typename Layout::template Ring<kBuffers> out;

        __device__ void advance(int chunks) {
            stage.advance(chunks);
            rows.advance(chunks);
            state.advance(chunks);
        }
    };

    // Where the output goes, and the output.
    __device__ static Destination run_chunk(const Params& params, const Current& current, Shared& shared,
                                            const Rings& rings, const Weights& weights, int chunk, ChunkTile& out) {
        auto& exchange = shared.exchange;
        const bool never = Layout::never(params);
        Rows rows;
        ptx::mbarrier_wait(exchange.rows_full[rings.rows.index], rings.rows.parity);
        load_rows(exchange.rows[rings.rows.index], rows);
        ChunkTile& scores = out; // the output takes their registers
        ptx::mbarrier_wait(shared.full[rings.stage.index], rings.stage.parity);
        multiply_rows(rows, shared.stage[rings.stage.index].b, scores);
        Layout::arrive_warp(exchange.rows_empty[rings.rows.index]);
        // Not with the next product in flight: registers are few, and the other groups' products run meanwhile.
        ptx::wgmma_wait<0>();
        ptx::touch(scores);
#pragma unroll
        for (int i = 0; i < 32; ++i) scores[i] *= weights.of_pair(i);
        RowScale score_scale;
        if constexpr (Element::kScaled) score_scale = scale_rows(scores);
        OperandA weighted[kTokenSteps];
#pragma unroll
        for (int i = 0; i < 32; i += 2) weighted[i / 8][i / 2 % 4] = Element::pack(scores[i], scores[i + 1]);

        ptx::mbarrier_wait(exchange.state_full[rings.state.index], rings.state.parity);
        multiply_rows(rows, exchange.state[rings.state.index], out, never);
        // What takes time is done while the products run.
        float state_weight[2];
        weights.of_state(current, Layout::tokens_of(current.sequence(), chunk), state_weight);
        ptx::wgmma_wait<0>();
        ptx::touch(out);
        ptx::hold(rows, never);
        if constexpr (Element::kScaled) scale_columns(out, exchange.state_scale[rings.state.index]);
        Layout::arrive_at_state(exchange.state_empty[rings.state.index]);
        multiply_rows_by(out, state_weight);
        if constexpr (Element::kScaled) score_scale.divide(out);
        add_values(weighted, shared.stage[rings.stage.index].c, out);
        const Destination destination(current, chunk);
        ptx::wgmma_wait<0>();
        ptx::touch(out);
        ptx::hold(weighted, never);
        Layout::arrive_warp(shared.empty[rings.stage.index]);
        if constexpr (Element::kScaled) score_scale.multiply(out);
        return destination;
    }

    __device__ static void run(const Params& params, Shared& shared, int group) {
        // Without what it does not write, the loop over chunks is shorter.
        if (Layout::call_of(params).written == kElementOut)
            run_jobs<true>(params, shared, group);
        else
            run_jobs<false>(params, shared, group);
    }

    template <bool kElements>
    __device__ static void run_jobs(const Params& params, Shared& shared, int group) {
        Rings rings;
        rings.advance(group);
        int next = group;    // of this group's chunks, counted from the job's first one
        bool copies = false; // a part of the last job's state
        Layout::for_each_job(params, shared, [&](const Current& current) {
            const Weights weights(current.call(), current.rate());
            if constexpr (Layout::kCopiesStates) {
                if (copies) end_copy(shared, rings.state.index);
                rings.stage.advance(Layout::places_of_state(current));
            }
            const int chunks = current.job().end_chunk - current.job().first_chunk;
#pragma unroll 1
            for (; next < chunks; next += Config::kOutputGroups) {
                ChunkTile out;
                const Destination destination =
                    run_chunk(params, current, shared, rings, weights, current.job().first_chunk + next, out);
                if constexpr (kElements)
                    store_output(params, current.call(), out, shared, rings.out.index, destination);
                else if (current.call().written == kFloatOut)
                    store_floats(current.call(), out, destination);
                rings.advance(Config::kOutputGroups);
                rings.out.advance();
            }
            next -= chunks;
            if constexpr (Layout::kCopiesStates) {
                copies = Layout::copies_final_state(current);
                if (copies) {
                    start_copy(params, current, shared, next, rings.state.index, rings.state.parity);
                    rings.state.advance(kStateParts); // to the same buffer, which end_copy() gives back
                    static_assert(Config::kStateBuffers == kStateParts);
                }
            }
        });
        if (ptx::elect_one()) ptx::wait_stores();
    }
};

} // namespace lattn::cuda
