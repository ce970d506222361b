// What the segmented scan needs of a packed batch, from cu_seqlens on the device: the parameters of every sequence, and
// the parts of work of each pass.
//
// Grid: the first CTA makes the table. The others clear what belongs to no sequence, and copy the initial states of
// sequences that may be cut into jobs: the last job writes the final state to the slot, and the first one may not have
// read it by then.
#pragma once

#include "packed/clear_padding.cuh"
#include "packed/sequence.cuh"
#include "ptx/dependent_launch.cuh"
#include "segmented_scan/sequence_table_params.h"

namespace lattn::cuda {

struct SequenceTable {
    static constexpr int kChunk = SegmentedScanConfig<64>::kChunk;
    static constexpr int kChunksPerSegment = SegmentedScanConfig<64>::kChunksPerSegment;
    static constexpr int kBuckets = 64; // of jobs, by their length

    struct Shared {
        unsigned long long chunks; // of all sequences
        int bucket[kBuckets];      // first the number of its parts, then the place of its next one
        int count[kPackedPasses];
    };

    __device__ static int64_t ceil_div(int64_t x, int64_t y) { return (x + y - 1) / y; }
    __device__ static int64_t chunks_of(const Sequence& sequence) { return ceil_div(sequence.tokens, kChunk); }
    __device__ static int64_t segments_of(const Sequence& sequence) {
        return ceil_div(sequence.tokens, kSegmentTokens);
    }

    __device__ static Sequence sequence_at(const SequenceTableParams& p, int64_t index) {
        return sequence_of(p.packed, p.call.tokens, index);
    }

    __device__ static int64_t heads_and_slices(const SequenceTableParams& p) {
        return int64_t{p.call.heads} * p.call.value_slices;
    }

    // All of them, or half of what a multiprocessor has to do. chunks: of all sequences.
    __device__ static int64_t segments_per_job(const SequenceTableParams& p, const Sequence& sequence, int64_t chunks) {
        const int64_t all = segments_of(sequence);
        const int64_t work = chunks * heads_and_slices(p); // of all multiprocessors
        if (!p.may_cut || 4 * chunks_of(sequence) * p.multiprocessors <= kLongestJobQuarters * work) return all;
        return min(max(work / (int64_t{2} * p.multiprocessors * kChunksPerSegment), int64_t{1}), all);
    }

    // Of a job's length: the longest come first. Two buckets for each power of two.
    __device__ static int bucket_of(const Sequence& sequence, int64_t per_job) {
        const auto chunks = static_cast<unsigned>(min(chunks_of(sequence), per_job * kChunksPerSegment));
        int power = 0;
        while (chunks >> power > 1) ++power;
        const int half = power > 0 ? static_cast<int>(chunks >> (power - 1) & 1) : 0;
        return kBuckets - 1 - (power * 2 + half);
    }

    __device__ static int64_t state_bytes(const SequenceTableParams& p) {
        return p.packed.pool_type == kPoolFloat32 ? 4 : 2;
    }

    __device__ static char* slot_at(const SequenceTableParams& p, const Sequence& sequence) {
        return static_cast<char*>(p.packed.pool) + sequence.entry * p.packed.stride_slot * state_bytes(p);
    }

    // No two sequences of several segments begin within as many tokens.
    __device__ static char* initial_copy(const SequenceTableParams& p, const Sequence& sequence) {
        const int64_t state = int64_t{p.call.heads} * p.call.row_dim * p.call.value_dim;
        return p.initial_copies + sequence.first / kCutSequenceTokens * state * state_bytes(p);
    }

    // Whole rows of value slices, at multiples of 16 bytes.
    __device__ static void set_prefetch(const SequenceTableParams& p, SequenceScan& scan) {
        constexpr int kValueCols = SegmentedScanConfig<64>::kValueCols;
        const auto bytes = [&](int64_t elements) { return elements * state_bytes(p); };
        const bool aligned = reinterpret_cast<uintptr_t>(scan.initial.data) % 16 == 0 &&
                             bytes(scan.initial.stride_row) % 16 == 0 && bytes(scan.initial.stride_h) % 16 == 0;
        const int64_t step = bytes(32 * scan.initial.stride_row);
        if (scan.split || !aligned || step > INT32_MAX || step < INT32_MIN || scan.initial.stride_column != 1 || p.call.value_dim % kValueCols != 0) return;
        scan.prefetched_row_bytes = static_cast<int32_t>(bytes(kValueCols));
        scan.prefetch_step = static_cast<int32_t>(step);
    }

    __device__ static void set_states(const SequenceTableParams& p, const Sequence& sequence,
                                      SequenceScan& scan) {
        if (p.packed.pool == nullptr) return;
        float* slot = reinterpret_cast<float*>(slot_at(p, sequence));
        const StateView in_pool{slot, 0, p.packed.stride_h, 0, p.packed.stride_row, p.packed.stride_column};
        scan.final = in_pool;
        if (!sequence.reads_state) return;
        scan.initial = in_pool;
        set_prefetch(p, scan);
        if (!scan.split) return;
        scan.initial = {reinterpret_cast<float*>(initial_copy(p, sequence)),
                        0,
                        int64_t{p.call.row_dim} * p.call.value_dim,
                        0,
                        p.call.value_dim,
                        1};
    }

    __device__ static void set_scan(const SequenceTableParams& p, int64_t index, const Sequence& sequence,
                                    int64_t per_job, SequenceScan& scan) {
        scan = p.call;
        const int chunks = static_cast<int>(chunks_of(sequence));
        const int segments = static_cast<int>(segments_of(sequence));
        const int jobs = static_cast<int>(ceil_div(segments, per_job));
        scan.split = jobs > 1;
        scan.summed_segments = (jobs - 1) * static_cast<int>(per_job);
        scan.segments_per_job = static_cast<int>(per_job);
        scan.segments = segments;
        scan.combined = scan.split && (segments > kSegmentsCombinedByJobs || p.outside_entries > 0);
        scan.state_entries = scan.summed_segments + p.outside_entries;
        scan.b_and_c_recur = scan.split;
        scan.end_chunk = scan.backwards ? segments * kChunksPerSegment : chunks;
        scan.first_chunk = scan.end_chunk - chunks;
        scan.short_chunk = scan.backwards ? scan.first_chunk : scan.end_chunk - 1;
        scan.token_offset = static_cast<int>(sequence.first);
        scan.short_tokens = static_cast<int>(sequence.tokens) - (chunks - 1) * kChunk;
        // Sequences before this one have at most as many sums as there are whole segments before it.
        const int64_t entries = sequence.first / kSegmentTokens + p.outside_entries * index;
        scan.workspace += entries * heads_and_slices(p) * p.state_floats;
        set_states(p, sequence, scan);
    }

    // Calls visit(index, sequence) for this thread's share of those with tokens.
    template <typename Visit>
    __device__ static void for_each_sequence(const SequenceTableParams& p, Visit visit) {
        for (int64_t index = threadIdx.x; index < p.packed.sequences; index += kSequenceTableThreads) {
            const Sequence sequence = sequence_at(p, index);
            if (sequence.tokens > 0) visit(index, sequence);
        }
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
            const int64_t per_job = segments_per_job(p, sequence, chunks);
            const int jobs = static_cast<int>(ceil_div(segments_of(sequence), per_job));
            atomicAdd(&shared.bucket[bucket_of(sequence, per_job)], jobs);
        });
        __syncthreads();
        if (thread == 0) {
            int place = 0;
            for (int& bucket : shared.bucket) {
                const int parts = bucket;
                bucket = place;
                place += parts;
            }
            shared.count[kScanPass] = place;
        }
        __syncthreads();
        for_each_sequence(p, [&](int64_t index, const Sequence& sequence) {
            const int64_t per_job = segments_per_job(p, sequence, chunks);
            SequenceScan& scan = p.table[index];
            set_scan(p, index, sequence, per_job, scan);
            const auto add = [&](PackedPass pass, int& counter, int parts) {
                const int place = atomicAdd(&counter, parts);
                for (int i = 0; i < min(parts, p.part_capacity - place); ++i)
                    p.parts[pass][place + i] = {static_cast<int32_t>(index), i};
            };
            const int jobs = static_cast<int>(ceil_div(segments_of(sequence), per_job));
            add(kScanPass, shared.bucket[bucket_of(sequence, per_job)], jobs);
            if (scan.split) add(kSumsPass, shared.count[kSumsPass], scan.summed_segments);
            if (scan.combined) add(kCombinePass, shared.count[kCombinePass], 1);
        });
        __syncthreads();
        if (thread < kPackedPasses) p.part_counts[thread] = min(shared.count[thread], p.part_capacity);
    }

    // Calls visit(element of the slot, index in a dense state) for this warp's share of a sequence's state; Word is as
    // wide as an element.
    template <typename Word, typename Visit>
    __device__ static void for_each_element(const SequenceTableParams& p, const Sequence& sequence, Visit visit) {
        constexpr int kWarps = kSequenceTableThreads / 32;
        const int rows = p.call.heads * p.call.row_dim;
        const int value_dim = p.call.value_dim;
        const int64_t stride_column = p.packed.stride_column;
        for (int row = static_cast<int>(blockIdx.x - 1) * kWarps + static_cast<int>(threadIdx.x) / 32; row < rows;
             row += static_cast<int>(gridDim.x - 1) * kWarps) {
            Word* elements = reinterpret_cast<Word*>(slot_at(p, sequence)) +
                             row / p.call.row_dim * p.packed.stride_h + row % p.call.row_dim * p.packed.stride_row;
            for (int column = static_cast<int>(threadIdx.x) % 32; column < value_dim; column += 32)
                visit(elements[column * stride_column], int64_t{row} * value_dim + column);
        }
    }

    template <typename Word>
    __device__ static void prepare_states(const SequenceTableParams& p) {
        for (int64_t index = 0; index < p.packed.sequences; ++index) {
            const Sequence sequence = sequence_at(p, index);
            if (sequence.tokens == 0 && sequence.writes_state)
                for_each_element<Word>(p, sequence, [](Word& element, int64_t) { element = 0; });
            if (!p.may_cut || !sequence.reads_state || segments_of(sequence) < 2) continue;
            Word* copy = reinterpret_cast<Word*>(initial_copy(p, sequence));
            for_each_element<Word>(p, sequence, [&](const Word& element, int64_t i) { copy[i] = element; });
        }
    }

    __device__ static void run(const SequenceTableParams& p) {
        __shared__ Shared shared;
        ptx::wait_for_prior_kernel();
        ptx::let_next_kernel_start();
        if (blockIdx.x == 0) {
            make(p, shared);
            return;
        }
        if (p.padding.data != nullptr) ClearPadding::run(p.padding, blockIdx.x - 1, gridDim.x - 1);
        if (p.packed.pool == nullptr) return;
        if (state_bytes(p) == 2)
            prepare_states<uint16_t>(p);
        else
            prepare_states<uint32_t>(p);
    }
};

} // namespace lattn::cuda
