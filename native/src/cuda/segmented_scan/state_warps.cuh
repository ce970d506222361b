// The state warps of the segmented scan: U^T [64 value columns x A] in fp32 accumulators, S^T beside it. Per chunk:
// X^T = g^n S^T + U^T, rounded, to shared memory for the output; then U^T = g^m U^T + (w c)^T b with w c in two parts,
// so that U keeps fp32's accuracy.
#pragma once

#include "ptx/dependent_launch.cuh"
#include "ptx/lane.cuh"
#include "ptx/ldmatrix.cuh"
#include "ptx/opaque.cuh"
#include "ptx/stmatrix.cuh"
#include "ptx/tensor_copy.cuh"
#include "ptx/wgmma.cuh"
#include "segmented_scan/layout.cuh"

namespace lattn::cuda {

template <typename T, int kRowDim, bool kSums, bool kPacked>
struct StateWarps : ScanLayout<T, kRowDim, kSums, kPacked> {
    using Layout = ScanLayout<T, kRowDim, kSums, kPacked>;
    using Layout::kChunk;
    using Layout::kRowSteps;
    using Layout::kStages;
    using Layout::kStateValues;
    using Layout::kTileBytes;
    using Layout::kTokenSteps;
    using Layout::kWithOutput;
    using typename Layout::Config;
    using typename Layout::Current;
    using typename Layout::Element;
    using typename Layout::Job;
    using typename Layout::OperandA;
    using typename Layout::Params;
    using typename Layout::Shared;
    using ByColumn = ptx::Wgmma<T, ptx::BOrder::kNContiguous>;
    using Sums = SegmentSums<Config>;
    using Values = OperandA[kTokenSteps];
    // What is found of the next chunk while the products of this one run. Its values, if no more than the state before
    // the sum is in registers besides: they are weighed once the products have read this chunk's. Or its weighed
    // values, if there are registers for them.
    static constexpr bool kLoadsAhead = kWithOutput && Element::kPackedWeights && Config::kBeforeInRegisters;
    static constexpr bool kWeighsAhead = !kLoadsAhead && Element::kPackedWeights;

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
                return workspace != nullptr ? workspace[i * kGroupThreads] : 0.0f;
        }

        __device__ void set(int i, float value) {
            if constexpr (Config::kBeforeInRegisters)
                values[i] = value;
            else
                workspace[i * kGroupThreads] = value;
        }
    };

    // Calls visit(i, element) for every value i of a state that this thread holds, element being of type E.
    template <typename E = float, typename Visit>
    __device__ static void for_each_value(const CallScan& call, const KeptState& state, const Job& job, Visit visit) {
        // What is not among the kernel's parameters would be read again after every element that is written.
        std::conditional_t<kPacked, KeptState, const KeptState&> view = state;
        // Addresses are not kept in registers from one call to the next.
        const int lane = ptx::opaque_lane();
        const int first_row = lane % 4 * 2;
        const int column = job.value_column() + Layout::warp_in_group() * 16 + lane / 4;
        const int first = job.row_part * kSumRows + first_row; // row parts are of the pass over sums
        E* element = reinterpret_cast<E*>(view.data) + job.batch * view.stride_b + job.head * view.stride_h +
                     first * view.stride_row + column * view.stride_column;
#pragma unroll
        for (int tile = 0; tile < kRowDim / 8; ++tile) {
#pragma unroll
            for (int half = 0; half < 2; ++half) {
#pragma unroll
                for (int pair = 0; pair < 2; ++pair) {
                    if (tile * 8 + first + pair < call.row_dim && column + half * 8 < call.value_dim)
                        visit(tile * 4 + half * 2 + pair,
                              element[pair * view.stride_row + half * 8 * view.stride_column]);
                }
            }
            element += 8 * view.stride_row;
        }
    }

    __device__ static KeptState state_of_block(const StateView& view, int64_t block) {
        return {view.data + block * view.stride_block, view.stride_b, view.stride_h, view.stride_row,
                view.stride_column};
    }

    // The same of `initial` or `final`.
    template <typename Visit>
    __device__ static void for_each_kept_value(const CallScan& call, const KeptState& view, const Job& job,
                                               Visit visit) {
        if constexpr (kPacked) {
            if (call.state_type == kPoolBfloat16) return for_each_value<__nv_bfloat16>(call, view, job, visit);
            if (call.state_type == kPoolFloat16) return for_each_value<__half>(call, view, job, visit);
        }
        for_each_value(call, view, job, visit);
    }

    // g^n S + U
    __device__ static float combined(float decay, float before, float sum) {
        return fmaf(decay, before, sum);
    }

    // The same at the end of a sum. Where the decay is 0, what came before may be no number, or nowhere to be read.
    __device__ static float carried_on(float decay, float before, float sum) {
        return decay > 0.0f ? combined(decay, before, sum) : sum;
    }

    __device__ static void write_block_state(const CallScan& call, int64_t block, const Job& job, float decay,
                                             const Before& before, const State& sum) {
        for_each_value(call, state_of_block(call.block_states, block), job,
                       [&](int i, float& element) { element = call.state_scale * combined(decay, before[i], sum[i]); });
    }

    __device__ static void write_final_state(const Current& current, const Job& job, float decay, const Before& before,
                                             const State& sum) {
        const float scale = current.call().state_scale;
        for_each_kept_value(current.call(), current.sequence().final, job, [&](int i, auto& element) {
            using E = std::remove_reference_t<decltype(element)>;
            element = from_float<E>(scale * combined(decay, before[i], sum[i]));
        });
    }

    // Where this thread's values of S of a segment lie in the workspace. Without a split all segments share one place.
    __device__ static float* workspace_state(const Current& current, const Job& job, int segment) {
        constexpr int kPartFloats = kSumRows * Config::kValueCols;
        const CallScan& call = current.call();
        const SequenceScan& p = current.sequence();
        const int64_t sequence = (int64_t{job.batch} * call.heads + job.head) * call.value_slices + job.slice;
        const bool keeps_first = call.row_parts * kSumRows > kBeforeInRegistersDim;
        const int entry = p.split ? segment - (keeps_first ? 0 : 1) : 0;
        return p.workspace + ((sequence * p.state_entries + entry) * call.row_parts + job.row_part) * kPartFloats +
               threadIdx.x % kGroupThreads;
    }

    // Whether this is a square fp32 state without gaps, as the copies of the initial states of cut sequences have it.
    __device__ static bool is_plain(const CallScan& call, const KeptState& state) {
        return call.row_dim == kRowDim && call.value_dim == kRowDim && call.state_type == kPoolFloat32 &&
               state.stride_row == kRowDim && state.stride_column == 1;
    }

    // Calls visit(i, element) for every value i of such a state. Nothing stands between the elements, so that all of
    // them are under way at once, and instructions are few: jobs are short, so they come from afar each time.
    template <typename Visit>
    __device__ static void for_each_plain_value(const KeptState& state, const Job& job, Visit visit) {
        const int lane = ptx::opaque_lane();
        float* element = state.data + job.head * state.stride_h + lane % 4 * 2 * kRowDim + job.value_column() +
                         Layout::warp_in_group() * 16 + lane / 4;
#pragma unroll
        for (int i = 0; i < kStateValues; ++i) visit(i, element[(i / 4 * 8 + i % 2) * kRowDim + i / 2 % 2 * 8]);
    }

    // The states of a sequence in a packed batch; their scale is 1.
    __device__ static void read_pool_state(const Current& current, const Job& job, Before& before) {
        const KeptState& state = current.sequence().initial;
        if (is_plain(current.call(), state))
            for_each_plain_value(state, job, [&](int i, const float& element) { before.set(i, element); });
        else
            for_each_kept_value(current.call(), state, job,
                                [&](int i, const auto& element) { before.set(i, to_float(element)); });
    }

    __device__ static Before state_before(const Current& current, const Job& job, const Sums& sums) {
        const SequenceScan& p = current.sequence();
        Before before = {};
        const bool combined_before = p.combined && job.segment() > 0;
        if constexpr (Config::kBeforeInRegisters) {
            if (combined_before) {
                const float* values = workspace_state(current, job, job.segment());
#pragma unroll
                for (int i = 0; i < kStateValues; ++i) before.values[i] = values[i * kGroupThreads];
            }
        } else if (combined_before || p.initial.data != nullptr) {
            before.workspace = workspace_state(current, job, job.segment());
        }
        if (!combined_before && p.initial.data != nullptr) {
            if constexpr (!Config::kBeforeInRegisters) {
                // What lies outside the state is zero too.
#pragma unroll
                for (int i = 0; i < kStateValues; ++i) before.set(i, 0.0f);
            }
            if constexpr (kPacked && Config::kBeforeInRegisters) {
                read_pool_state(current, job, before);
            } else {
                const float scale = current.call().inverse_state_scale;
                for_each_kept_value(current.call(), p.initial, job,
                                    [&](int i, const auto& element) { before.set(i, to_float(element) * scale); });
            }
        }
        if constexpr (Config::kBeforeInRegisters) {
            if (p.split && !p.combined) combine_sums(current, job, sums, before);
        }
        return before;
    }

    // S <- g^L S + U for every segment before the job.
    __device__ static void combine_sums(const Current& current, const Job& job, const Sums& sums, Before& before) {
#pragma unroll 1
        for (int segment = sums.forgets() ? max(job.segment(), 1) : 1; segment <= job.segment(); ++segment) {
            const float decay = sums.decay_over_segment(segment - 1);
            const float* sum = workspace_state(current, job, segment);
#pragma unroll
            for (int i = 0; i < kStateValues; ++i) before.set(i, carried_on(decay, before[i], sum[i * kGroupThreads]));
        }
    }

    // S <- g^n S + U, U <- 0
    __device__ static void end_sum(const Current& current, const Job& job, float decay, Before& before, State& sum) {
        const Before old = before;
        if constexpr (!Config::kBeforeInRegisters) before.workspace = workspace_state(current, job, job.segment());
#pragma unroll
        for (int i = 0; i < kStateValues; ++i) {
            before.set(i, carried_on(decay, old[i], sum[i]));
            sum[i] = 0.0f;
        }
    }

    // X^T = g^n S^T + U^T, rounded, to shared memory; a fence_async_shared() is still to come.
    __device__ static void store_state(Shared& shared, int buffer, float decay, const Before& before,
                                       const State& sum) {
        const uint32_t tiles = ptx::shared_address(shared.exchange.state[buffer]);
        const int row = Layout::warp_in_group() * 16;
        float inverse[2] = {1.0f, 1.0f}; // of the scale of this thread's rows
        if constexpr (Element::kScaled) {
            const int lane = ptx::opaque_lane();
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
    }

    // Weights of this thread's tokens of a chunk.
    struct Weights {
        typename Layout::ChunkWeights step;

        Weights() = default;

        __device__ Weights(const CallScan& call, float rate, int tokens) {
            tokens = ptx::opaque(tokens); // or weights that are formed for every chunk would stay in registers
#pragma unroll
            for (int i = 0; i < kTokenSteps; ++i) {
#pragma unroll
                for (int u = 0; u < 2; ++u)
                    step[i].pair[u] = Layout::token_weights(call, rate, tokens,
                                                            i * 16 + u * 8 + static_cast<int>(threadIdx.x) % 4 * 2);
            }
        }

        // As the warp that hands out jobs has formed them.
        __device__ Weights(const Current& current, bool is_short) {
            const auto& handed = current.weights()[is_short][ptx::opaque(threadIdx.x) % 4];
#pragma unroll
            for (int i = 0; i < kTokenSteps; ++i) step[i] = handed[i];
        }
    };

    // (w c)^T of a chunk in two parts, as operands a of the state update.
    struct WeightedValues {
        OperandA high[kTokenSteps];
        OperandA low[kTokenSteps];
    };

    __device__ static void load_values(const char* c, int step, OperandA& values) {
        ptx::ldmatrix_x4_transposed(
            values, Layout::transposed_part_address(ptx::shared_address(c), step * 16, Layout::warp_in_group() * 2));
    }

    __device__ static void weigh_values(const char* c, const Weights& weights, WeightedValues& weighted) {
        OperandA values[2]; // a load is under way while other values are weighed
        load_values(c, 0, values[0]);
#pragma unroll
        for (int step = 0; step < kTokenSteps; ++step) {
            if (step + 1 < kTokenSteps) load_values(c, step + 1, values[(step + 1) % 2]);
            Element::weigh(values[step % 2], weights.step[step].pair, weighted.high[step], weighted.low[step]);
        }
    }

    // U^T += (w c)^T b, not waited for. steps: of 16 tokens, that have any.
    __device__ static void add_chunk(const char* b, const WeightedValues& weighted, State& sum,
                                     int steps = kTokenSteps) {
        const uint64_t operand = ptx::wgmma_operand(ptx::shared_address(b), kTileBytes);
#pragma unroll
        for (int part = 0; part < State::kParts; ++part) ptx::touch(sum.part[part]);
        ptx::wgmma_fence();
#pragma unroll
        for (int step = 0; step < kTokenSteps; ++step) {
            if (step >= steps) break;
#pragma unroll
            for (int part = 0; part < State::kParts; ++part) {
                const uint64_t rows =
                    ptx::wgmma_operand_at(operand, part * (State::kPartCols / 64) * kTileBytes + step * 2048);
                ByColumn::multiply(sum.part[part], weighted.high[step], rows, true);
                ByColumn::multiply(sum.part[part], weighted.low[step], rows, true);
            }
        }
        ptx::wgmma_commit();
    }

    // Waits for add_chunk.
    __device__ static void end_adding(const Params& p, const WeightedValues& weighted, State& sum) {
        ptx::wgmma_wait<0>();
#pragma unroll
        for (int part = 0; part < State::kParts; ++part) ptx::touch(sum.part[part]);
        ptx::hold(weighted.high, Layout::never(p));
        ptx::hold(weighted.low, Layout::never(p));
    }

    struct Rings {
        typename Layout::template Ring<kStages> stage;
        typename Layout::template Ring<Config::kStateBuffers> state;
    };

    // The values of the chunk that is next in the ring of stages.
    __device__ static void load_next_values(Shared& shared, const Rings& rings, Values& values) {
        ptx::mbarrier_wait(shared.full[rings.stage.index], rings.stage.parity);
#pragma unroll
        for (int step = 0; step < kTokenSteps; ++step)
            load_values(shared.stage[rings.stage.index].c, step, values[step]);
    }

    // Where values are loaded ahead: publishes the state before a chunk, and adds the chunk. While the products run,
    // meanwhile() does what takes time; it replaces the values by the next ones. steps: of 16 tokens, that have any.
    // decay_before, decay: g^n of the sum's tokens before the chunk, and g^m of its own.
    template <typename Meanwhile>
    __device__ static void run_chunk(const Params& params, Shared& shared, const Before& before, State& sum,
                                     const Values& values, const Weights& weights, int steps, float decay_before,
                                     float decay, Rings& rings, Meanwhile meanwhile) {
        auto& exchange = shared.exchange;
        ptx::mbarrier_wait(exchange.state_empty[rings.state.index], rings.state.parity ^ 1);
        store_state(shared, rings.state.index, decay_before, before, sum);
        WeightedValues weighted;
#pragma unroll
        for (int step = 0; step < kTokenSteps; ++step)
            Element::weigh(values[step], weights.step[step].pair, weighted.high[step], weighted.low[step]);
#pragma unroll
        for (int i = 0; i < kStateValues; ++i) sum[i] *= decay;
        const int stage = rings.stage.index;
        if (steps < kTokenSteps)
            add_chunk(shared.stage[stage].b, weighted, sum, steps);
        else
            add_chunk(shared.stage[stage].b, weighted, sum);
        ptx::fence_async_shared();
        Layout::arrive_at_state(exchange.state_full[rings.state.index]);
        rings.state.advance();
        rings.stage.advance();
        meanwhile();
        end_adding(params, weighted, sum);
        Layout::arrive_warp(shared.empty[stage]);
    }

    // Chunks of a job that are worked on alike, so that the loop over them holds nothing else: they end where a sum or
    // a block of states ends, and around a chunk of fewer tokens than the others. Jobs of a packed batch are short and
    // have such a chunk as a rule: there it is one of the run.
    struct Run {
        int end_chunk;
        float tokens_before; // of the sum, before the next chunk
        float decay;         // g^m of its chunks of m tokens
        int next_tokens;     // of the chunks after its first one, and of that after its last one

        __device__ Run(const CallScan& call, const SequenceScan& p, const Job& job, int chunk, const Sums& sums) {
            end_chunk = min(job.end_chunk, sums.end_chunk(chunk));
            tokens_before = sums.tokens_before(chunk);
            if constexpr (kPacked) return;
            if (has_block_states(call)) {
                const int block_chunks = chunks_of_block(call);
                end_chunk = min(end_chunk, (chunk / block_chunks + 1) * block_chunks);
            }
            if (has_block_grads(call)) {
                const int block_chunks = chunks_of_block(call);
                end_chunk = min(end_chunk, p.end_chunk - (p.end_chunk - 1 - chunk) / block_chunks * block_chunks);
            }
            if (Layout::tokens_of(p, chunk) < kChunk) end_chunk = chunk + 1;
            if (Layout::tokens_of(p, end_chunk - 1) < kChunk && chunk + 1 < end_chunk) --end_chunk;
            if (end_chunk < job.end_chunk && Layout::tokens_of(p, end_chunk) < kChunk && chunk + 1 < end_chunk)
                --end_chunk;
            decay = expf(-sums.rate * static_cast<float>(Layout::tokens_of(p, chunk)));
            next_tokens = end_chunk < job.end_chunk ? Layout::tokens_of(p, end_chunk) : kChunk;
        }
    };

    // A packed batch has neither.
    __device__ static bool has_block_states(const CallScan& call) {
        return kWithOutput && !kPacked && call.block_states.data != nullptr;
    }
    __device__ static bool has_block_grads(const CallScan& call) {
        return !kPacked && call.block_grads.data != nullptr;
    }

    // Adds the gradient of the state before the block that begins, in token order, where `chunk` begins in scan order.
    __device__ static void add_block_grad(const Current& current, const Job& job, int chunk, State& sum) {
        const CallScan& call = current.call();
        const int chunks = current.sequence().end_chunk - chunk; // of the tokens before the block
        if (!has_block_grads(call) || chunks % chunks_of_block(call) != 0) return;
        for_each_value(call, state_of_block(call.block_grads, chunks / chunks_of_block(call)), job,
                       [&](int i, float element) { sum[i] += element * call.inverse_state_scale; });
    }

    __device__ static int chunks_of_block(const CallScan& call) {
        return static_cast<int>(min(call.block_size / kChunk, int64_t{1} << 24));
    }

    // With values loaded ahead; PackedStateWarps has a packed batch's.
    __device__ static void run_job_loading_ahead(const Params& params, Shared& shared, const Current& current,
                                                 Rings& rings) {
        static_assert(kLoadsAhead && !kPacked);
        const float rate = current.rate();
        State sum = {};
        Before before = state_before(current, current.job(), sums_of(current, rate));
        Weights weights = first_weights(current, rate);
        Values values;
        load_next_values(shared, rings, values);
        int chunk = current.job().first_chunk;
#pragma unroll 1
        while (chunk < current.end_chunk()) {
            Run run = begin_run(current, chunk, rate, before, sum);
            float decay_before = expf(-rate * run.tokens_before);
#pragma unroll 1
            for (; chunk < run.end_chunk; ++chunk) {
                run_chunk(params, shared, before, sum, values, weights, kTokenSteps, decay_before, run.decay, rings,
                          [&] {
                              run.tokens_before += static_cast<float>(kChunk);
                              decay_before = expf(-rate * run.tokens_before);
                              if (chunk + 1 < current.end_chunk()) load_next_values(shared, rings, values);
                          });
            }
            if (run.next_tokens < kChunk) weights = Weights(current.call(), rate, run.next_tokens);
            add_block_grad(current, current.job(), chunk, sum);
        }
        end_job(current, rate, before, sum);
    }

    __device__ static void run_job(const Params& params, Shared& shared, const Current& current, Rings& rings) {
        const float rate = current.rate();
        State sum = {};
        Before before = state_before(current, current.job(), sums_of(current, rate));
        if constexpr (kPacked) current.wait_for_weights();
        Weights weights = first_weights(current, rate);
        WeightedValues weighted;
        ptx::mbarrier_wait(shared.full[rings.stage.index], rings.stage.parity);
        weigh_values(shared.stage[rings.stage.index].c, weights, weighted);

        int chunk = current.job().first_chunk;
#pragma unroll 1
        while (chunk < current.end_chunk()) {
            Run run = begin_run(current, chunk, rate, before, sum);
            if constexpr (!kPacked)
                if (run.next_tokens < kChunk) weights = Weights(current.call(), rate, run.next_tokens);
#pragma unroll 1
            for (; chunk < run.end_chunk; ++chunk) {
                float tokens = kChunk;
                if constexpr (kPacked) {
                    run.decay = current.its_job().beginning.decay[current.is_short(chunk)];
                    tokens = static_cast<float>(Layout::tokens_of(current.sequence(), chunk));
                }
                if constexpr (kWithOutput) {
                    ptx::mbarrier_wait(shared.exchange.state_empty[rings.state.index], rings.state.parity ^ 1);
                    store_state(shared, rings.state.index, expf(-rate * run.tokens_before), before, sum);
                    run.tokens_before += tokens;
                }
#pragma unroll
                for (int i = 0; i < kStateValues; ++i) sum[i] *= run.decay;
                const int stage = rings.stage.index;
                add_chunk(shared.stage[stage].b, weighted, sum);

                // What takes time is done while the products run.
                if constexpr (kWithOutput) {
                    ptx::fence_async_shared();
                    Layout::arrive_at_state(shared.exchange.state_full[rings.state.index]);
                    rings.state.advance();
                }
                rings.stage.advance();
                const bool has_next = chunk + 1 < current.end_chunk();
                if (has_next) ptx::mbarrier_wait(shared.full[rings.stage.index], rings.stage.parity);
                const char* c = shared.stage[rings.stage.index].c;
                if constexpr (kWeighsAhead) {
                    WeightedValues next = weighted;
                    if (has_next) weigh_values(c, next_weights(current, rate, chunk + 1, run, weights), next);
                    end_adding(params, weighted, sum);
                    weighted = next;
                } else {
                    end_adding(params, weighted, sum);
                    if (has_next) weigh_values(c, next_weights(current, rate, chunk + 1, run, weights), weighted);
                }
                Layout::arrive_warp(shared.empty[stage]);
            }
            add_block_grad(current, current.job(), chunk, sum);
        }
        if constexpr (kPacked) current.leave_weights();
        end_job(current, rate, before, sum);
    }

    __device__ static Weights first_weights(const Current& current, float rate) {
        const int chunk = current.job().first_chunk;
        if constexpr (kPacked)
            return Weights(current, current.is_short(chunk));
        else
            return Weights(current.call(), rate, Layout::tokens_of(current.sequence(), chunk));
    }

    // Of `chunk`. Weights of fp32 are formed for each one: there are no registers to keep them in.
    __device__ static Weights next_weights(const Current& current, float rate, int chunk, const Run& run,
                                           const Weights& kept) {
        if constexpr (kPacked)
            return Weights(current, current.is_short(chunk));
        else
            return Element::kPackedWeights ? kept : Weights(current.call(), rate, run.next_tokens);
    }

    __device__ static Sums sums_of(const Current& current, float rate) {
        if constexpr (kPacked)
            return Sums(current.sequence(), rate, current.its_job().beginning.restart);
        else
            return Sums(current.sequence(), rate);
    }

    // What lies between runs.
    __device__ static Run begin_run(const Current& current, int chunk, float rate, Before& before, State& sum) {
        const CallScan& call = current.call();
        const Job job = current.job();
        const Sums sums = sums_of(current, rate);
        if (chunk == sums.first_chunk(chunk) && chunk > job.first_chunk)
            end_sum(current, job, sums.decay_at_end(chunk), before, sum);
        if (has_block_states(call) && chunk % chunks_of_block(call) == 0)
            write_block_state(call, chunk / chunks_of_block(call), job, expf(-rate * sums.tokens_before(chunk)), before,
                              sum);
        return Run(call, current.sequence(), job, chunk, sums);
    }

    __device__ static void end_job(const Current& current, float rate, const Before& before, const State& sum) {
        const SequenceScan& p = current.sequence();
        const Job job = current.job();
        if constexpr (!kWithOutput) {
            float* state = workspace_state(current, job, job.end_chunk / Config::kChunksPerSegment);
#pragma unroll
            for (int i = 0; i < kStateValues; ++i) state[i * kGroupThreads] = sum[i];
        } else if (p.final.data != nullptr && job.end_chunk == p.end_chunk) {
            const int begin = sums_of(current, rate).first_chunk(job.end_chunk - 1);
            const float decay = expf(-rate * tokens_between<Config>(p, begin, job.end_chunk));
            write_final_state(current, job, decay, before, sum);
        }
    }

    __device__ static void run(const Params& params, Shared& shared) {
        Rings rings;
        Layout::for_each_job(params, shared, [&](const Current& current) {
            // For sums or the states before jobs; everything else may start without the passes before this one.
            if constexpr (kWithOutput && !kPacked) {
                if (current.job().segment() > 0 && params.split && !params.overlaps) ptx::wait_for_prior_kernel();
            }
            if constexpr (kLoadsAhead)
                run_job_loading_ahead(params, shared, current, rings);
            else
                run_job(params, shared, current, rings);
        });
    }
};

} // namespace lattn::cuda
