// What the segmented scan needs of a packed batch, from cu_seqlens on the device: the parameters of every sequence, and
// the parts of work of each pass.
//
// Grid: the first CTA makes the table. The others clear what belongs to no sequence, and copy the initial states of
// sequences that may be cut into jobs: the last job writes the final state to the slot, and the first one may not have
// read it by then.
#pragma once

#include "packed/clear_padding.cuh"
#include "ptx/dependent_launch.cuh"
#include "segmented_scan/packed_sequence.cuh"
#include "segmented_scan/sequence_table_params.h"

namespace lattn::cuda {

struct SequenceTable : PackedSequence {
    static constexpr int kBuckets = 64; // of jobs, by their length

    struct Shared {
        unsigned long long chunks; // of all sequences
        int bucket[kBuckets];      // first the number of its parts, then the place of its next one
        int count[kPackedPasses];
    };

    // Of a job's length: the longest come first. Two buckets for each power of two.
    __device__ static int bucket_of(const Sequence& sequence, unsigned per_job) {
        const unsigned chunks = min(chunks_of(sequence), per_job * kChunksPerSegment);
        int power = 0;
        while (chunks >> power > 1) ++power;
        const int half = power > 0 ? static_cast<int>(chunks >> (power - 1) & 1) : 0;
        return kBuckets - 1 - (power * 2 + half);
    }

    // Calls visit(index, sequence) for this thread's share of those with tokens.
    template <typename Visit>
    __device__ static void for_each_sequence(const SequenceTableParams& p, Visit visit) {
        for (int64_t index = threadIdx.x; index < p.packed.sequences; index += kSequenceTableThreads) {
            const Sequence sequence = sequence_at(p, index);
            if (sequence.tokens > 0) visit(index, sequence);
        }
    }

    // From the number of each bucket's parts to their first place, by a warp.
    __device__ static void place_buckets(int lane, Shared& shared) {
        static_assert(kBuckets == 64);
        const int parts[2] = {shared.bucket[lane * 2], shared.bucket[lane * 2 + 1]};
        int end = parts[0] + parts[1];
#pragma unroll
        for (int step = 1; step < 32; step *= 2) {
            const int before = __shfl_sync(0xffffffffu, end, max(lane - step, 0));
            if (lane >= step) end += before;
        }
        shared.bucket[lane * 2] = end - parts[0] - parts[1];
        shared.bucket[lane * 2 + 1] = end - parts[1];
        if (lane == 31) shared.count[kScanPass] = end;
    }

    __device__ static void make(const SequenceTableParams& p, Shared& shared) {
        const int thread = static_cast<int>(threadIdx.x);
        if (thread < kBuckets) shared.bucket[thread] = 0;
        if (thread < kPackedPasses) shared.count[thread] = 0;
        if (thread == 0) shared.chunks = 0;
        __syncthreads();
        for_each_sequence(p, [&](int64_t, const Sequence& sequence) {
            atomicAdd(&shared.chunks, static_cast<unsigned long long>(chunks_of(sequence)));
        });
        __syncthreads();
        const auto chunks = static_cast<int64_t>(shared.chunks);
        for_each_sequence(p, [&](int64_t, const Sequence& sequence) {
            const unsigned per_job = segments_per_job(p, sequence, chunks);
            atomicAdd(&shared.bucket[bucket_of(sequence, per_job)], static_cast<int>(jobs_of(sequence, per_job)));
        });
        __syncthreads();
        if (thread < 32) place_buckets(thread, shared);
        __syncthreads();
        for_each_sequence(p, [&](int64_t index, const Sequence& sequence) {
            const unsigned per_job = segments_per_job(p, sequence, chunks);
            SequenceScan& scan = p.table[index];
            set_scan(p, index, sequence, per_job, scan);
            const auto add = [&](PackedPass pass, int& counter, int parts) {
                const int place = atomicAdd(&counter, parts);
                for (int i = 0; i < min(parts, p.part_capacity - place); ++i)
                    p.parts[pass][place + i] = {static_cast<int32_t>(index), i};
            };
            const int jobs = static_cast<int>(jobs_of(sequence, per_job));
            add(kScanPass, shared.bucket[bucket_of(sequence, per_job)], jobs);
            if (scan.split) add(kSumsPass, shared.count[kSumsPass], scan.summed_segments);
            if (scan.combined) add(kCombinePass, shared.count[kCombinePass], 1);
        });
        __syncthreads();
        if (thread < kPackedPasses) p.part_counts[thread] = min(shared.count[thread], p.part_capacity);
    }

    // Warps of the CTAs after the first one.
    static constexpr int kWarps = kSequenceTableThreads / 32;
    __device__ static int worker() {
        return static_cast<int>(blockIdx.x - 1) * kWarps + static_cast<int>(threadIdx.x) / 32;
    }
    __device__ static int workers() {
        return static_cast<int>(gridDim.x - 1) * kWarps;
    }

    template <typename Word>
    __device__ static void prepare_states(const SequenceTableParams& p) {
        clear_states<Word>(p, worker(), workers());
        if (!p.may_cut) return;
        for_each_chosen(
            p, [](const Sequence& sequence) { return sequence.reads_state && segments_of(sequence) > 1; },
            [&](const Sequence& sequence) {
                for_each_word<Word>(p, sequence, initial_copy(p, sequence), worker(), workers(),
                                    [](const Word& word, Word* copy) { *copy = word; });
            });
    }

    __device__ static void run(const SequenceTableParams& p) {
        __shared__ Shared shared;
        ptx::wait_for_prior_kernel();
        ptx::let_next_kernel_start();
        if (blockIdx.x == 0) {
            make(p, shared);
            return;
        }
        if (p.padding.data != nullptr) ClearPadding::run(p.padding, worker(), workers());
        if (p.packed.pool == nullptr) return;
        with_words(p, [&](auto word) { prepare_states<decltype(word)>(p); });
    }
};

} // namespace lattn::cuda
