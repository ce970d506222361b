// What the segmented scan needs of a packed batch, from cu_seqlens on the device: the parameters of every sequence with
// tensor maps of its own, so that its last chunk ends where it does, and the parts of work of each pass.
//
// Grid: the first CTA makes the table; the others copy the initial states of sequences that are cut into jobs, whose
// last one writes the final state to the slot while the first may not have read it.
#pragma once

#include "ptx/dependent_launch.cuh"
#include "ptx/tensor_map_edit.cuh"
#include "segmented_scan/sequence_table_params.h"

namespace lattn::cuda {

struct SequenceTable {
    static constexpr int kChunk = SegmentedScanConfig<64>::kChunk;
    static constexpr int kChunksPerSegment = SegmentedScanConfig<64>::kChunksPerSegment;
    static constexpr int kBuckets = 64; // of jobs by their length

    struct Shared {
        unsigned long long chunks; // of all sequences
        int bucket[kBuckets];      // first its parts, then the place of its next one
        int count[kPackedPasses];
    };

    struct Sequence {
        int64_t begin;
        int64_t tokens;
        int64_t slot; // -1: none
        bool has_initial;

        __device__ int64_t chunks() const { return (tokens + kChunk - 1) / kChunk; }
        __device__ int64_t segments() const { return (tokens + kSegmentTokens - 1) / kSegmentTokens; }
    };

    __device__ static int64_t read(const void* values, bool are_int64, int64_t index) {
        return are_int64 ? static_cast<const int64_t*>(values)[index] : static_cast<const int32_t*>(values)[index];
    }

    // Without tokens if it is to be skipped.
    __device__ static Sequence sequence_at(const SequenceTableParams& p, int index) {
        const auto offset = [&](int64_t i) { return read(p.cu_seqlens, p.cu_seqlens_are_int64, i); };
        Sequence sequence{};
        sequence.begin = min(max(offset(index), int64_t{0}), p.call.tokens);
        sequence.tokens = max(min(offset(index + 1), p.call.tokens) - sequence.begin, int64_t{0});
        sequence.slot = -1;
        if (p.has_pool) {
            const int64_t slot = p.slots != nullptr ? read(p.slots, p.slots_are_int64, index) : index;
            if (slot >= 0 && slot < p.slot_count)
                sequence.slot = slot;
            else
                sequence.tokens = 0;
            sequence.has_initial = sequence.slot >= 0 && p.has_initial != nullptr && p.has_initial[index] != 0;
        }
        return sequence;
    }

    __device__ static int64_t heads_and_slices(const SequenceTableParams& p) {
        return int64_t{p.call.heads} * p.call.value_slices;
    }

    // Segments of a job: half of what a multiprocessor has to do, where all of the sequence would be too much.
    __device__ static int64_t segments_per_job(const SequenceTableParams& p, const Sequence& sequence, int64_t chunks) {
        const int64_t all = sequence.segments();
        const int64_t work = chunks * heads_and_slices(p); // of all multiprocessors
        if (!p.may_cut || 4 * sequence.chunks() * p.multiprocessors <= kLongestJobQuarters * work) return all;
        return min(max(work / (int64_t{2} * p.multiprocessors * kChunksPerSegment), int64_t{1}), all);
    }

    // Longest first; eight steps to each power of two.
    __device__ static int bucket_of(int64_t chunks) {
        const int exponent = 63 - __clzll(chunks);
        const int step = exponent >= 3 ? static_cast<int>(chunks >> (exponent - 3) & 7) : 0;
        return kBuckets - 1 - min((exponent * 8 + step) / 4, kBuckets - 1);
    }

    __device__ static int64_t job_chunks(const Sequence& sequence, int64_t per_job) {
        return min(sequence.chunks(), per_job * kChunksPerSegment);
    }

    __device__ static void set_map(BoxedTensor& boxed, const PackedTensor& tensor, const Sequence& sequence) {
        if (tensor.data == nullptr) return;
        ptx::replace_address(boxed.map, tensor.data + sequence.begin * tensor.stride_bytes);
        ptx::replace_size<1>(boxed.map, static_cast<uint32_t>(sequence.tokens));
    }

    __device__ static StateView in_slot(const SequenceTableParams& p, const StateView& view, int64_t slot) {
        StateView state = view;
        state.data = reinterpret_cast<float*>(reinterpret_cast<char*>(view.data) +
                                              slot * p.stride_slot * p.state_bytes);
        return state;
    }

    // The copy of an initial state: no two sequences of several segments begin within as many tokens.
    __device__ static char* initial_copy(const SequenceTableParams& p, const Sequence& sequence) {
        const int64_t state = int64_t{p.call.heads} * p.call.row_dim * p.call.value_dim;
        return p.initial_copies + sequence.begin / kCutSequenceTokens * state * p.state_bytes;
    }

    __device__ static void set_states(const SequenceTableParams& p, const Sequence& sequence,
                                      SegmentedScanParams& scan) {
        if (sequence.slot < 0) return;
        scan.final = in_slot(p, p.call.final, sequence.slot);
        if (!sequence.has_initial) return;
        scan.initial = in_slot(p, p.call.initial, sequence.slot);
        if (!scan.split) return;
        scan.initial = {reinterpret_cast<float*>(initial_copy(p, sequence)),
                        0,
                        int64_t{p.call.row_dim} * p.call.value_dim,
                        0,
                        p.call.value_dim,
                        1};
    }

    __device__ static void set_scan(const SequenceTableParams& p, const Sequence& sequence, int64_t per_job,
                                    SegmentedScanParams& scan) {
        scan = p.call;
        scan.initial.data = nullptr;
        scan.final.data = nullptr;
        const int chunks = static_cast<int>(sequence.chunks());
        const int segments = static_cast<int>(sequence.segments());
        const int jobs = static_cast<int>((segments + per_job - 1) / per_job);
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
        scan.short_tokens = static_cast<int>(sequence.tokens - int64_t{chunks - 1} * kChunk);
        if (scan.float_out != nullptr) scan.float_out += sequence.begin * p.call.value_dim;
        if (scan.workspace != nullptr) {
            // As many entries have begun before as there are segments that ended before.
            const int64_t entries =
                sequence.begin / kSegmentTokens + int64_t{p.outside_entries} * (&scan - p.table);
            scan.workspace += entries * heads_and_slices(p) * p.state_floats;
        }
        set_states(p, sequence, scan);
        set_map(scan.a, p.a, sequence);
        set_map(scan.b, p.b, sequence);
        set_map(scan.c, p.c, sequence);
        set_map(scan.out, p.out, sequence);
    }

    template <typename Visit>
    __device__ static void for_each_sequence(const SequenceTableParams& p, Visit visit) {
        for (int index = threadIdx.x; index < p.sequences; index += kSequenceTableThreads) {
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
        for_each_sequence(p, [&](int, const Sequence& sequence) {
            atomicAdd(&shared.chunks, static_cast<unsigned long long>(sequence.chunks()));
        });
        __syncthreads();
        const auto chunks = static_cast<int64_t>(shared.chunks);
        for_each_sequence(p, [&](int, const Sequence& sequence) {
            const int64_t per_job = segments_per_job(p, sequence, chunks);
            const int jobs = static_cast<int>((sequence.segments() + per_job - 1) / per_job);
            atomicAdd(&shared.bucket[bucket_of(job_chunks(sequence, per_job))], jobs);
        });
        __syncthreads();
        if (thread == 0) {
            int place = 0;
            for (int bucket = 0; bucket < kBuckets; ++bucket) {
                const int parts = shared.bucket[bucket];
                shared.bucket[bucket] = place;
                place += parts;
            }
            shared.count[kScanPass] = place;
        }
        __syncthreads();
        for_each_sequence(p, [&](int index, const Sequence& sequence) {
            const int64_t per_job = segments_per_job(p, sequence, chunks);
            SegmentedScanParams& scan = p.table[index];
            set_scan(p, sequence, per_job, scan);
            ptx::release_maps();
            const int jobs = scan.split ? (scan.segments + scan.segments_per_job - 1) / scan.segments_per_job : 1;
            const auto add = [&](PackedPass pass, int place, int parts) {
                for (int i = 0; i < parts; ++i) p.parts[pass][place + i] = {index, i};
            };
            add(kScanPass, atomicAdd(&shared.bucket[bucket_of(job_chunks(sequence, per_job))], jobs), jobs);
            if (scan.split)
                add(kSumsPass, atomicAdd(&shared.count[kSumsPass], scan.summed_segments), scan.summed_segments);
            if (scan.combined) add(kCombinePass, atomicAdd(&shared.count[kCombinePass], 1), 1);
        });
        __syncthreads();
        if (thread < kPackedPasses) p.part_counts[thread] = shared.count[thread];
    }

    template <typename Word>
    __device__ static void copy_initial(const SequenceTableParams& p, const Sequence& sequence) {
        const StateView from = in_slot(p, p.call.initial, sequence.slot);
        Word* to = reinterpret_cast<Word*>(initial_copy(p, sequence));
        const int64_t state = int64_t{p.call.row_dim} * p.call.value_dim;
        const int64_t step = int64_t{kSequenceTableThreads} * (gridDim.x - 1);
        for (int64_t i = int64_t{blockIdx.x - 1} * kSequenceTableThreads + threadIdx.x; i < p.call.heads * state;
             i += step)
            to[i] = reinterpret_cast<const Word*>(
                from.data)[i / state * from.stride_h + i % state / p.call.value_dim * from.stride_row +
                           i % p.call.value_dim * from.stride_column];
    }

    __device__ static void run(const SequenceTableParams& p) {
        __shared__ Shared shared;
        ptx::wait_for_prior_kernel();
        ptx::let_next_kernel_start();
        if (blockIdx.x == 0) {
            make(p, shared);
            return;
        }
        for (int index = 0; index < p.sequences; ++index) {
            const Sequence sequence = sequence_at(p, index);
            if (!sequence.has_initial || sequence.segments() < 2) continue;
            if (p.state_bytes == 2)
                copy_initial<uint16_t>(p, sequence);
            else
                copy_initial<uint32_t>(p, sequence);
        }
    }
};

} // namespace lattn::cuda
