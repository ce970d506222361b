// The state warps of a packed batch whose states fit into registers. The other roles wait for them, between chunks and,
// since jobs are short, between jobs: tensor copies bring and take the states of a pool, and what a chunk needs is
// found while the products of the one before it run.
#pragma once

#include "segmented_scan/state_warps.cuh"

namespace lattn::cuda {

template <typename T, int kRowDim>
struct PackedStateWarps : StateWarps<T, kRowDim, false, true> {
    using Base = StateWarps<T, kRowDim, false, true>;
    using Layout = typename Base::Layout;
    using Layout::kStateValues;
    using typename Base::Before;
    using typename Base::Rings;
    using typename Base::State;
    using typename Base::Sums;
    using typename Base::Values;
    using typename Base::Weights;
    using typename Layout::Current;
    using typename Layout::Params;
    using typename Layout::Shared;
    static constexpr int kPartValues = kStateValues / kStateParts;

    // Calls visit(i, element) for every value i of this thread of a part of a state, as tensor copies have it in shared
    // memory. The four rows and eight columns of a warp lie in different banks.
    template <typename Visit>
    __device__ static void for_each_copied_value(char* part, Visit visit) {
        const int lane = ptx::opaque_lane();
        const int warp = Layout::warp_in_group();
        char* element[2][2]; // of each half of 16 columns, of two neighbouring rows
#pragma unroll
        for (int half = 0; half < 2; ++half) {
#pragma unroll
            for (int pair = 0; pair < 2; ++pair) {
                const int row = lane % 4 * 2 + pair;
                const int word = (warp % 2 * 4 + half * 2 + lane / 16) ^ row; // of 16 bytes
                element[half][pair] =
                    part + warp / 2 * Layout::kStateColumnBytes + row * 128 + word * 16 + lane / 4 % 4 * 4;
            }
        }
#pragma unroll
        for (int i = 0; i < kPartValues; ++i)
            visit(i, *reinterpret_cast<float*>(element[i / 2 % 2][i % 2] + i / 4 * 1024));
    }

    // The state that a job starts from, out of the ring of stages.
    __device__ static void read_copied_state(Shared& shared, Rings& rings, Before& before) {
#pragma unroll
        for (int part = 0; part < kStateParts; ++part) {
            const int stage = rings.stage.index;
            ptx::mbarrier_wait(shared.full[stage], rings.stage.parity);
            for_each_copied_value(shared.stage[stage].b,
                                  [&](int i, const float& element) { before.set(part * kPartValues + i, element); });
            ptx::fence_async_shared(); // or the next copy to the stage may come before what is read of this one
            leave_for_all(shared.empty[stage]);
            rings.stage.advance();
        }
    }

    // On behalf of the output warps too, who do not look at the stage.
    __device__ static void leave_for_all(ptx::Mbarrier& empty) {
        __syncwarp();
        if (threadIdx.x % 32 < Layout::kReaders / Layout::kWarpsPerGroup) ptx::mbarrier_arrive(empty);
    }

    // The state that a job ends with, to the output warps, who have it copied to the pool.
    __device__ static void write_copied_state(Shared& shared, Rings& rings, float decay, const Before& before,
                                              const State& sum) {
        auto& exchange = shared.exchange;
#pragma unroll
        for (int part = 0; part < kStateParts; ++part) {
            const int buffer = rings.state.index;
            ptx::mbarrier_wait(exchange.state_empty[buffer], rings.state.parity ^ 1);
            for_each_copied_value(exchange.state[buffer], [&](int i, float& element) {
                const int value = part * kPartValues + i;
                element = Base::combined(decay, before[value], sum[value]);
            });
            ptx::fence_async_shared();
            Layout::arrive_at_state(exchange.state_full[buffer]);
            rings.state.advance();
        }
    }

    // decay: over the job's last sum
    __device__ static void write_final_state(Shared& shared, const Current& current, float decay, const Before& before,
                                             const State& sum, Rings& rings) {
        const uint32_t traits = current.its_job().beginning.traits;
        if (traits & Layout::kEndsInCopy)
            write_copied_state(shared, rings, decay, before, sum);
        else if (traits & Layout::kEndsInState)
            Base::write_final_state(current, current.job(), decay, before, sum);
    }

    __device__ static Before state_before(Shared& shared, const Current& current, Rings& rings) {
        Before before = {};
        if (current.beginning.traits & Layout::kStartsFromCopy)
            read_copied_state(shared, rings, before);
        else if (current.beginning.traits & Layout::kStartsFromState)
            before = Base::state_before(current, current.job(), Base::sums_of(current, current.rate()));
        return before;
    }

    // What a chunk needs of the sum that it belongs to.
    struct Decays {
        float tokens; // before the chunk
        float before; // g^n of so many
        float own;    // g^m of the chunk's tokens
    };

    // Of a job, in registers. What every chunk looks at is the same in all threads; for that there are some still.
    struct Work {
        int short_chunk, short_tokens;
        State sum;
        Before before;
        Values values;   // of the next chunk
        Weights weights; // of these
        bool is_short;   // that chunk
        Decays decays;
    };

    __device__ static void run_chunk(const Params& params, Shared& shared, const Current& current, int chunk,
                                     Work& work, Rings& rings) {
        const auto& job = current.beginning;
        const int tokens = work.is_short ? work.short_tokens : Layout::kChunk;
        Base::run_chunk(params, shared, work.before, work.sum, work.values, work.weights, (tokens + 15) / 16,
                        work.decays.before, work.decays.own, rings, [&] {
                            work.decays.tokens += static_cast<float>(tokens);
                            work.decays.before = expf(-job.rate * work.decays.tokens);
                            const bool was_short = work.is_short;
                            work.is_short = chunk + 1 == work.short_chunk;
                            work.decays.own = work.is_short ? job.decay[1] : job.decay[0];
                            if (chunk + 1 == job.end_chunk) return;
                            Base::load_next_values(shared, rings, work.values);
                            if (work.is_short != was_short) work.weights = Weights(current, work.is_short);
                        });
    }

    __device__ static void run_job(const Params& params, Shared& shared, const Current& current, Rings& rings) {
        const auto& beginning = current.beginning;
        const bool starts_short = beginning.traits & Layout::kStartsShort;
        Work work;
        work.short_chunk = current.sequence().short_chunk;
        work.short_tokens = current.sequence().short_tokens;
        work.sum = {};
        work.before = state_before(shared, current, rings);
        work.is_short = starts_short;
        work.decays.own = starts_short ? beginning.decay[1] : beginning.decay[0];
        int chunk = beginning.first_chunk;
        int end =
            min(beginning.end_chunk, Sums(current.sequence(), beginning.rate, beginning.restart).end_chunk(chunk));
        current.wait_for_weights();
        Base::load_next_values(shared, rings, work.values);
        work.weights = Weights(current, starts_short);
#pragma unroll 1
        while (true) {
            work.decays.tokens = 0.0f;
            work.decays.before = 1.0f;
#pragma unroll 1
            do {
                run_chunk(params, shared, current, chunk, work, rings);
            } while (++chunk < end);
            if (chunk == beginning.end_chunk) break;
            const Sums sums = Base::sums_of(current, beginning.rate);
            Base::end_sum(current, current.job(), sums.decay_at_end(chunk), work.before, work.sum);
            end = min(beginning.end_chunk, sums.end_chunk(chunk));
        }
        current.leave_weights();
        write_final_state(shared, current, work.decays.before, work.before, work.sum, rings);
    }

    __device__ static void run(const Params& params, Shared& shared) {
        Rings rings;
        Layout::for_each_job(params, shared, [&](const Current& current) { run_job(params, shared, current, rings); });
    }
};

} // namespace lattn::cuda
