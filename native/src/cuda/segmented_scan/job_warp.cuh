// The warp that hands the jobs of a packed batch to the others of its CTA, some ahead: none of them waits for what a
// job's beginning needs of memory.
#pragma once

#include <type_traits>

#include "ptx/dependent_launch.cuh"
#include "ptx/lane.cuh"
#include "ptx/prefetch.cuh"
#include "segmented_scan/few_sequences.cuh"
#include "segmented_scan/layout.cuh"

namespace lattn::cuda {

template <typename T, int kRowDim, bool kSums>
struct JobWarp : ScanLayout<T, kRowDim, kSums, true> {
    using Layout = ScanLayout<T, kRowDim, kSums, true>;
    using Layout::kJobs;
    using Layout::kJobWeights;
    using Layout::kWithOutput;
    using typename Layout::Job;
    using typename Layout::PackedJob;
    using typename Layout::Shared;

    // Job `index` of a part.
    __device__ static Job job_of_part(const CallScan& call, const SequenceScan& p, int part, unsigned index) {
        if constexpr (kWithOutput) {
            return Job(call, p, part, index);
        } else {
            const unsigned tiles = call.value_slices * call.row_parts / Layout::kRowTiles;
            return Job(call, p, static_cast<int>((index / tiles * p.summed_segments + part) * tiles + index % tiles));
        }
    }

    // The state in the pool that a job starts from, for it comes from DRAM.
    __device__ static void prefetch_state(const PackedCall& packed, const PackedJob& job) {
        const CallScan& call = packed.call;
        const SequenceScan& p = job.sequence;
        const int bytes = packed.prefetched_row_bytes;
        if (bytes == 0 || p.initial.data == nullptr || p.split) return;
        const int element_bytes = bytes / Layout::Config::kValueCols;
        const char* row = reinterpret_cast<const char*>(p.initial.data) +
                          job.beginning.head * p.initial.stride_h * element_bytes + job.slice * bytes;
#pragma unroll 1
        for (int i = ptx::opaque_lane(); i < call.row_dim; i += 32)
            ptx::prefetch_bytes(row + i * p.initial.stride_row * element_bytes, bytes);
    }

    // The sequence of a part as a kernel before this one has written it. Returns which of its jobs the part is.
    __device__ static int copy_sequence(const PackedScanParams& params, unsigned index, SequenceScan& sequence) {
        const PackedPart part = params.parts[index];
        const auto* from = reinterpret_cast<const uint32_t*>(params.sequences + part.sequence);
        auto* to = reinterpret_cast<uint32_t*>(&sequence);
#pragma unroll 1
        for (int word = ptx::opaque_lane(); word < static_cast<int>(sizeof(SequenceScan) / sizeof(uint32_t));
             word += 32)
            to[word] = from[word];
        return part.index;
    }

    // Job `index` of a part, whose sequence `job` has; `rate` is that of a job with output. False: nothing needs the
    // job.
    __device__ static bool set_job(const CallScan& call, int part, unsigned index, float rate, PackedJob& job) {
        const Job its = job_of_part(call, job.sequence, part, index);
        if (its.first_chunk == its.end_chunk) return false;
        if constexpr (!kWithOutput) rate = call.decay_rate[its.head];
        if (ptx::opaque_lane() == 0) {
            job.slice = its.slice;
            job.row_part = its.row_part;
            job.beginning.head = its.head;
            job.beginning.first_chunk = its.first_chunk;
            job.beginning.end_chunk = its.end_chunk;
            if constexpr (Layout::kCopiesStates) job.beginning.traits = Layout::traits_of(job);
            set_decay(job, rate);
        }
        return true;
    }

    __device__ static void set_decay(PackedJob& job, float rate) {
        job.beginning.rate = rate;
        job.beginning.restart = SegmentSums<typename Layout::Config>::restart_of(rate);
#pragma unroll 1
        for (int i = 0; i < 2; ++i) job.beginning.decay[i] = expf(-rate * static_cast<float>(tokens_of(job, i)));
    }

    __device__ static int tokens_of(const PackedJob& job, bool of_short) {
        return of_short ? job.sequence.short_tokens : Layout::kChunk;
    }

    // One pair per lane.
    __device__ static void set_weights(const CallScan& call, const PackedJob& job,
                                       typename Layout::JobWeights& weights) {
        const int quarter = ptx::opaque_lane() / 8;
        const int step = ptx::opaque_lane() % 8 / 2;
        const int pair = ptx::opaque_lane() % 2;
        static_assert(4 * Layout::kTokenSteps * 2 == 32);
#pragma unroll 1
        for (int i = 0; i < 2; ++i)
            weights[i][quarter][step].pair[pair] =
                Layout::token_weights(call, job.beginning.rate, tokens_of(job, i), step * 16 + pair * 8 + quarter * 2);
    }

    // Where jobs come from: sequences that this warp finds out itself ...
    struct FromOffsets {
        FewSequences sequences;

        __device__ explicit FromOffsets(const PackedScanParams& params) : sequences(params) {}

        __device__ unsigned parts(const PackedScanParams&) const { return sequences.count(); }

        // Writes the sequence of a part, by the whole warp, and returns which of its jobs the part is.
        __device__ int set_sequence(const PackedScanParams& params, unsigned part, SequenceScan& sequence) const {
            sequences.set_scan(params, static_cast<int>(part), sequence);
            return 0;
        }
    };

    // ... or has been told by a kernel before this one.
    struct FromTable {
        __device__ static unsigned parts(const PackedScanParams& params) { return *params.part_count; }

        __device__ static int set_sequence(const PackedScanParams& params, unsigned part, SequenceScan& sequence) {
            return copy_sequence(params, part, sequence);
        }
    };

    __device__ static float rate_of(const PackedScanParams& params, unsigned head) {
        return __ldcg(params.call.decay_rate + head); // past L1, see sequence.cuh
    }

    // Writes job `index`, once there is a place for it. False: nothing needs the job.
    template <typename Source>
    __device__ static bool make_job(const PackedScanParams& params, Shared& shared, const Source& source,
                                    unsigned index, unsigned turn) {
        ptx::mbarrier_wait(shared.packed.job_empty[turn % kJobs], turn / kJobs % 2 ^ 1);
        PackedJob& job = shared.packed.job[turn % kJobs];
        float rate = 0.0f; // loaded while the sequence is written
        if constexpr (kWithOutput) rate = rate_of(params, index % params.jobs_per_part / params.call.value_slices);
        const int part = source.set_sequence(params, index / params.jobs_per_part, job.sequence);
        __syncwarp();
        const bool needed = set_job(params.call, part, index % params.jobs_per_part, rate, job);
        __syncwarp();
        return needed;
    }

    // Whether sequences or rate are others than when the job was made.
    __device__ static bool is_outdated(const PackedScanParams& params, const FromOffsets& source,
                                       const PackedJob& job) {
        const float rate = rate_of(params, job.beginning.head); // on its way while the sequences are looked at
        return source.sequences.have_changed(params) || rate != job.beginning.rate;
    }

    // Few sequences are found, and the first job is made, while the kernel before this one drains. That one may still
    // write what they are made of, so it is looked at again afterwards: all at once, where a job takes one load after
    // the other and much arithmetic.
    template <typename Source>
    __device__ static void hand_out(const PackedScanParams& params, Shared& shared, Source source) {
        constexpr bool kLooksAhead = std::is_same_v<Source, FromOffsets>;
        unsigned parts = source.parts(params);
        unsigned turn = 0;
        bool has_waited = !kLooksAhead;
#pragma unroll 1
        for (unsigned index = blockIdx.x;;) {
            const bool exists = index / params.jobs_per_part < parts;
            const bool needed = exists && make_job(params, shared, source, index, turn);
            turn = ptx::opaque(turn);
            if constexpr (kLooksAhead) {
                if (!has_waited) {
                    has_waited = true;
                    ptx::wait_for_prior_kernel();
                    if (!exists || is_outdated(params, source, shared.packed.job[turn % kJobs])) {
                        source = Source(params);
                        parts = source.parts(params);
                        continue;
                    }
                }
            }
            if (!exists) break;
            index += gridDim.x;
            if (!needed) continue;
            prefetch_state(params, shared.packed.job[turn % kJobs]);
            turn = ptx::opaque(turn);
            Layout::arrive_warp(shared.packed.job_full[turn % kJobs]);
            ptx::mbarrier_wait(shared.packed.weights_empty[turn % kJobWeights], turn / kJobWeights % 2 ^ 1);
            set_weights(params.call, shared.packed.job[turn % kJobs], shared.packed.weights[turn % kJobWeights]);
            Layout::arrive_warp(shared.packed.weights_full[turn % kJobWeights]);
            ++turn;
        }
        // Its CTAs find no room before these end.
        ptx::let_next_kernel_start();
        ptx::mbarrier_wait(shared.packed.job_empty[turn % kJobs], turn / kJobs % 2 ^ 1);
        if (ptx::opaque_lane() == 0) shared.packed.job[turn % kJobs].beginning.head = -1;
        Layout::arrive_warp(shared.packed.job_full[turn % kJobs]);
    }

    // Where there are output warps, the kernel has not waited for the one before it on behalf of this warp.
    __device__ static void run(const PackedScanParams& params, Shared& shared) {
        if constexpr (kWithOutput) {
            if (params.few) {
                hand_out(params, shared, FromOffsets(params));
                FewSequences::clear_others(params, blockIdx.x, gridDim.x);
                return;
            }
            ptx::wait_for_prior_kernel();
        }
        hand_out(params, shared, FromTable());
    }
};

} // namespace lattn::cuda
