// The state warps of the segmented scan: U^T [64 value columns x A] in fp32 accumulators, S^T beside it. Per chunk:
// X^T = g^n S^T + U^T, rounded, to shared memory for the output; then U^T = g^m U^T + (w c)^T b with w c in two parts, so
// that U keeps fp32's accuracy.
#pragma once

#include "ptx/dependent_launch.cuh"
#include "ptx/ldmatrix.cuh"
#include "ptx/opaque.cuh"
#include "ptx/stmatrix.cuh"
#include "ptx/tensor_copy.cuh"
#include "ptx/wgmma.cuh"
#include "segmented_scan/layout.cuh"

namespace lattn::cuda {

template <typename T, int kRowDim, bool kWithOutput>
struct StateWarps : ScanLayout<T, kRowDim, kWithOutput> {
    using Layout = ScanLayout<T, kRowDim, kWithOutput>;
    using typename Layout::Config;
    using typename Layout::Element;
    using typename Layout::Job;
    using typename Layout::OperandA;
    using typename Layout::Shared;
    using Layout::kChunk;
    using Layout::kRowSteps;
    using Layout::kStages;
    using Layout::kStateValues;
    using Layout::kTileBytes;
    using Layout::kTokenSteps;
    using ByColumn = ptx::Wgmma<T, ptx::BOrder::kNContiguous>;
    // The next chunk's values are weighed while the products of this one run; where there are two CTAs per SM, those of
    // the other one run then.
    static constexpr bool kWeighsAhead = kWithOutput || Config::kSumCtas == 1;

    // U^T in the accumulators of products of kPartCols columns.
    struct State {
        static constexpr int kPartCols = kRowDim % 128 == 0 ? 128 : 64;
        static constexpr int kParts = kRowDim / kPartCols;
        static constexpr int kPartValues = kPartCols / 2;
        float part[kParts][kPartValues];

        __device__ float& operator[](int i) { return part[i / kPartValues][i % kPartValues]; }
        __device__ float operator[](int i) const { return part[i / kPartValues][i % kPartValues]; }
    };

    // S^T, in registers or in the workspace.
    struct Before {
        float values[Config::kBeforeInRegisters ? kStateValues : 1];
        float* workspace; // NULL: zeros

        __device__ float operator[](int i) const {
            if constexpr (Config::kBeforeInRegisters)
                return values[i];
            else
                return workspace != nullptr ? workspace[i * Config::kStateThreads] : 0.0f;
        }

        __device__ void set(int i, float value) {
            if constexpr (Config::kBeforeInRegisters)
                values[i] = value;
            else
                workspace[i * Config::kStateThreads] = value;
        }
    };

    // Walks the blocks of states along with the chunks.
    struct Blocks {
        int chunks; // of a block
        int index;  // of the block that begins next
        int until;  // chunks before it begins

        __device__ Blocks(const SegmentedScanParams& p, int first_chunk)
            : chunks(static_cast<int>(min(p.block_size / kChunk, int64_t{1} << 30))) {
            index = (first_chunk + chunks - 1) / chunks;
            until = index * chunks - first_chunk;
        }

        __device__ bool begins_here() const { return until == 0; }

        __device__ void advance() {
            if (until == 0) {
                ++index;
                until = chunks;
            }
            --until;
        }
    };

    // Calls visit(i, element) for every value i of a state that this thread holds.
    template <typename Visit>
    __device__ static void for_each_value(const SegmentedScanParams& p, const StateView& view, int64_t block,
                                          const Job& job, Visit visit) {
        const int lane = threadIdx.x % 32;
        const int first_row = lane % 4 * 2;
        const int column = job.value_column() + Layout::warp_in_group() * 16 + lane / 4;
        float* element = view.data + job.batch * view.stride_b + job.head * view.stride_h + block * view.stride_block +
                         first_row * view.stride_row + column * view.stride_column;
#pragma unroll
        for (int tile = 0; tile < kRowDim / 8; ++tile) {
#pragma unroll
            for (int half = 0; half < 2; ++half) {
#pragma unroll
                for (int pair = 0; pair < 2; ++pair) {
                    if (tile * 8 + first_row + pair < p.row_dim && column + half * 8 < p.value_dim)
                        visit(tile * 4 + half * 2 + pair,
                              element[pair * view.stride_row + half * 8 * view.stride_column]);
                }
            }
            element += 8 * view.stride_row;
        }
    }

    // g^n S + U
    __device__ static float combined(float decay, float before, float sum) { return fmaf(decay, before, sum); }

    __device__ static void write_state(const SegmentedScanParams& p, const StateView& view, int64_t block,
                                       const Job& job, float decay, const Before& before, const State& sum) {
        for_each_value(p, view, block, job,
                       [&](int i, float& element) { element = combined(decay, before[i], sum[i]); });
    }

    // Where this thread's values of S of a segment lie in the workspace. Without a split all segments share one place.
    __device__ static float* workspace_state(const SegmentedScanParams& p, const Job& job, int segment) {
        const int64_t sequence = (int64_t{job.batch} * p.heads + job.head) * p.value_slices + job.slice;
        const int entry = p.split ? segment - (Config::kBeforeInRegisters ? 1 : 0) : 0;
        return p.workspace + (sequence * p.state_entries + entry) * Config::kStateFloats + threadIdx.x;
    }

    __device__ static Before state_before(const SegmentedScanParams& p, const Job& job) {
        Before before = {};
        const bool combined_before = p.split && job.segment() > 0;
        if constexpr (Config::kBeforeInRegisters) {
            if (combined_before) {
                const float* values = workspace_state(p, job, job.segment());
#pragma unroll
                for (int i = 0; i < kStateValues; ++i) before.values[i] = values[i * Config::kStateThreads];
            }
        } else if (combined_before || p.initial.data != nullptr) {
            before.workspace = workspace_state(p, job, job.segment());
        }
        if (!combined_before && p.initial.data != nullptr) {
            if constexpr (!Config::kBeforeInRegisters) {
                // What lies outside the state is zero too.
#pragma unroll
                for (int i = 0; i < kStateValues; ++i) before.set(i, 0.0f);
            }
            for_each_value(p, p.initial, 0, job, [&](int i, float element) { before.set(i, element); });
        }
        return before;
    }

    // S <- g^L S + U, U <- 0
    __device__ static void end_segment(const SegmentedScanParams& p, const Job& job, float decay, Before& before,
                                       State& sum) {
        const Before old = before;
        if constexpr (!Config::kBeforeInRegisters) before.workspace = workspace_state(p, job, 0);
#pragma unroll
        for (int i = 0; i < kStateValues; ++i) {
            before.set(i, combined(decay, old[i], sum[i]));
            sum[i] = 0.0f;
        }
    }

    // X^T = g^n S^T + U^T, rounded, to shared memory.
    __device__ static void publish_state(Shared& shared, int buffer, float decay, const Before& before,
                                         const State& sum) {
        const uint32_t tiles = ptx::shared_address(shared.exchange.state[buffer]);
        const int row = Layout::warp_in_group() * 16;
        float inverse[2] = {1.0f, 1.0f}; // of the scale of this thread's rows
        if constexpr (Element::kScaled) {
            const int lane = threadIdx.x % 32;
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                float largest = 0.0f;
#pragma unroll
                for (int i = half * 2; i < kStateValues; i += 4) {
                    largest = fmaxf(largest, fabsf(combined(decay, before[i], sum[i])));
                    largest = fmaxf(largest, fabsf(combined(decay, before[i + 1], sum[i + 1])));
                }
                const int exponent = scale_exponent(largest_of_row(largest), -113);
                inverse[half] = power_of_two(-exponent);
                if (lane % 4 == 0)
                    shared.exchange.state_scale[buffer][row + half * 8 + lane / 4] = power_of_two(exponent);
            }
            // X is computed again below: there are no registers to keep it in.
            decay = __uint_as_float(ptx::opaque(__float_as_uint(decay)));
        }
#pragma unroll
        for (int step = 0; step < kRowSteps; ++step) {
            uint32_t rounded[4];
#pragma unroll
            for (int pair = 0; pair < 4; ++pair) {
                const int i = step * 8 + pair * 2;
                float x = combined(decay, before[i], sum[i]);
                float y = combined(decay, before[i + 1], sum[i + 1]);
                if constexpr (Element::kScaled) {
                    x *= inverse[pair % 2];
                    y *= inverse[pair % 2];
                }
                rounded[pair] = Element::pack(x, y);
            }
            ptx::stmatrix_x4(Layout::part_address(tiles, row, step * 2), rounded);
        }
        ptx::fence_async_shared();
    }

    // Weights of this thread's tokens of a chunk: pair u of step s holds tokens 16s + 8u + 2(lane % 4) and the next.
    struct Weights {
        typename Element::WeightPair pair[kTokenSteps][2];

        // Beyond the chunk's tokens b and c are zero; any finite weight will do.
        __device__ Weights(float rate, int tokens) {
#pragma unroll
            for (int step = 0; step < kTokenSteps; ++step) {
#pragma unroll
                for (int u = 0; u < 2; ++u) {
                    const int last = tokens - 1 - (step * 16 + u * 8 + static_cast<int>(threadIdx.x) % 4 * 2);
                    pair[step][u] = Element::weight_pair(expf(-rate * static_cast<float>(max(last, 0))),
                                                         expf(-rate * static_cast<float>(max(last - 1, 0))));
                }
            }
        }
    };

    // (w c)^T of a chunk in two parts, as operands a of the state update.
    struct WeightedValues {
        OperandA high[kTokenSteps];
        OperandA low[kTokenSteps];
    };

    __device__ static void weigh_values(const char* c, const Weights& weights, WeightedValues& weighted) {
        const uint32_t base = ptx::shared_address(c);
#pragma unroll
        for (int step = 0; step < kTokenSteps; ++step) {
            uint32_t value[4];
            ptx::ldmatrix_x4_transposed(
                value, Layout::transposed_part_address(base, step * 16, Layout::warp_in_group() * 2));
#pragma unroll
            for (int i = 0; i < 4; ++i)
                Element::weigh(value[i], weights.pair[step][i / 2], weighted.high[step][i], weighted.low[step][i]);
        }
    }

    // U^T += (w c)^T b, not waited for.
    __device__ static void add_chunk(const char* b, const WeightedValues& weighted, State& sum) {
        const uint32_t base = ptx::shared_address(b);
        ptx::wgmma_fence();
#pragma unroll
        for (int step = 0; step < kTokenSteps; ++step) {
#pragma unroll
            for (int part = 0; part < State::kParts; ++part) {
                const uint32_t tiles = base + part * (State::kPartCols / 64) * kTileBytes;
                const uint64_t rows = ptx::wgmma_operand(tiles + step * 2048, kTileBytes);
                ByColumn::multiply(sum.part[part], weighted.high[step], rows, true);
                ByColumn::multiply(sum.part[part], weighted.low[step], rows, true);
            }
        }
        ptx::wgmma_commit();
    }

    // Waits for add_chunk.
    __device__ static void end_adding(const SegmentedScanParams& p, const WeightedValues& weighted, State& sum) {
        ptx::wgmma_wait<0>();
#pragma unroll
        for (int part = 0; part < State::kParts; ++part) ptx::touch(sum.part[part]);
#pragma unroll
        for (int step = 0; step < kTokenSteps; ++step) {
            ptx::hold(weighted.high[step], Layout::never(p));
            ptx::hold(weighted.low[step], Layout::never(p));
        }
    }

    struct Rings {
        typename Layout::template Ring<kStages> stage;
        typename Layout::template Ring<Config::kStateBuffers> state;
    };

    // Waits for a chunk at its place in the ring and weighs its values.
    __device__ static void weigh_chunk(const SegmentedScanParams& p, Shared& shared, const Rings& rings, float rate,
                                       int chunk, Weights& weights, WeightedValues& weighted) {
        const int tokens = Layout::tokens_of(p, chunk);
        // Weights of fp32 are formed again for every chunk: there are no registers to keep them in.
        if (tokens < kChunk || !Element::kPackedWeights) weights = Weights(rate, tokens);
        ptx::mbarrier_wait(shared.full[rings.stage.index], rings.stage.parity);
        weigh_values(shared.stage[rings.stage.index].c, weights, weighted);
    }

    __device__ static void run_job(const SegmentedScanParams& p, Shared& shared, const Job& job, Rings& rings) {
        const float rate = p.decay_rate[job.head];
        State sum = {};
        Before before = state_before(p, job);
        Blocks blocks(p, job.first_chunk);
        Weights weights(rate, kChunk);
        WeightedValues weighted;
        weigh_chunk(p, shared, rings, rate, job.first_chunk, weights, weighted);
        for (int chunk = job.first_chunk; chunk < job.end_chunk; ++chunk) {
            const int in_segment = chunk % Config::kChunksPerSegment * kChunk; // tokens before the chunk
            if (in_segment == 0 && chunk > job.first_chunk)
                end_segment(p, job, expf(-rate * static_cast<float>(kSegmentTokens)), before, sum);
            if constexpr (kWithOutput) {
                const float decay = expf(-rate * static_cast<float>(in_segment));
                if (p.block_states.data != nullptr && blocks.begins_here())
                    write_state(p, p.block_states, blocks.index, job, decay, before, sum);
                blocks.advance();
                ptx::mbarrier_wait(shared.exchange.state_empty[rings.state.index], rings.state.parity ^ 1);
                publish_state(shared, rings.state.index, decay, before, sum);
                Layout::arrive_warp(shared.exchange.state_full[rings.state.index]);
                rings.state.advance();
            }

            const float decay = expf(-rate * static_cast<float>(Layout::tokens_of(p, chunk)));
#pragma unroll
            for (int i = 0; i < kStateValues; ++i) sum[i] *= decay;
            const int stage = rings.stage.index;
            add_chunk(shared.stage[stage].b, weighted, sum);

            rings.stage.advance();
            const bool is_last = chunk + 1 == job.end_chunk;
            if constexpr (kWeighsAhead) {
                WeightedValues next = weighted;
                if (!is_last) weigh_chunk(p, shared, rings, rate, chunk + 1, weights, next);
                end_adding(p, weighted, sum);
                Layout::arrive_warp(shared.empty[stage]);
                weighted = next;
            } else {
                end_adding(p, weighted, sum);
                Layout::arrive_warp(shared.empty[stage]);
                if (!is_last) weigh_chunk(p, shared, rings, rate, chunk + 1, weights, weighted);
            }
        }

        if constexpr (!kWithOutput) {
            float* values = workspace_state(p, job, job.segment() + 1);
#pragma unroll
            for (int i = 0; i < kStateValues; ++i) values[i * Config::kStateThreads] = sum[i];
        } else if (p.final.data != nullptr && int64_t{job.end_chunk} * kChunk >= p.tokens) {
            const int64_t segment_begin = int64_t{(job.end_chunk - 1) / Config::kChunksPerSegment} * kSegmentTokens;
            write_state(p, p.final, 0, job, expf(-rate * static_cast<float>(p.tokens - segment_begin)), before, sum);
        }
    }

    __device__ static void run(const SegmentedScanParams& p, Shared& shared) {
        // The passes before this one write the states before segments; everything else may start without them.
        if (kWithOutput && p.split) ptx::wait_for_prior_kernel();
        Rings rings;
        const int jobs = Layout::job_count(p);
#pragma unroll 1
        for (int index = blockIdx.x; index < jobs; index += gridDim.x)
            run_job(p, shared, Job(p, index), rings);
    }
};

} // namespace lattn::cuda
