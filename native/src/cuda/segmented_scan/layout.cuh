// What the roles of the segmented scan share: shared memory, the addresses in its tiles, rings of buffers, and the jobs
// of a CTA.
#pragma once

#include <type_traits>

#include "ptx/mbarrier.cuh"
#include "ptx/opaque.cuh"
#include "ptx/tensor_copy.cuh"
#include "segmented_scan/element.cuh"
#include "segmented_scan/segmented_scan_config.h"
#include "segmented_scan/segmented_scan_params.h"
#include "tile/element.cuh"

namespace lattn::cuda {

// The last chunks of a segment, of which its sum consists.
template <typename Config>
__device__ __forceinline__ int chunks_in_sum(float rate) {
    return rate * kSegmentTokens <= kForgottenNats
               ? Config::kChunksPerSegment
               : min(static_cast<int>(kForgottenNats / (rate * Config::kChunk)) + 1, Config::kChunksPerSegment);
}

// Tokens of chunks [begin, end).
template <typename Config>
__device__ __forceinline__ float tokens_between(const SequenceScan& p, int begin, int end) {
    const bool with_short = begin <= p.short_chunk && p.short_chunk < end;
    return static_cast<float>((end - begin) * Config::kChunk - (with_short ? Config::kChunk - p.short_tokens : 0));
}

// Where the sums of a head begin: at segments, and within them where what came before is forgotten at their end.
template <typename Config>
struct SegmentSums {
    const SequenceScan& p;
    float rate;
    int restart; // chunk of a segment, 0: none

    __device__ SegmentSums(const SequenceScan& p_, float rate_)
        : p(p_), rate(rate_), restart(Config::kChunksPerSegment - chunks_in_sum<Config>(rate)) {}

    // Whether the state at a segment's end holds nothing from before the segment.
    __device__ bool forgets() const { return restart > 0; }

    // Of the sum that a chunk belongs to.
    __device__ int first_chunk(int chunk) const {
        const int in_segment = chunk % Config::kChunksPerSegment;
        return max(chunk - in_segment + (in_segment >= restart ? restart : 0), p.first_chunk);
    }

    __device__ int end_chunk(int chunk) const {
        const int in_segment = chunk % Config::kChunksPerSegment;
        return chunk - in_segment + (in_segment >= restart ? Config::kChunksPerSegment : restart);
    }

    // Tokens of the sum that come before a chunk.
    __device__ float tokens_before(int chunk) const { return tokens_between<Config>(p, first_chunk(chunk), chunk); }

    // What S has decayed by at the end of the sum that `chunk` follows. The first segment may be too short to forget.
    __device__ float decay_at_end(int chunk) const {
        const bool ends_segment = chunk % Config::kChunksPerSegment == 0;
        if (ends_segment && forgets() && chunk - Config::kChunksPerSegment + restart > p.first_chunk) return 0.0f;
        return expf(-rate * tokens_between<Config>(p, first_chunk(chunk - 1), chunk));
    }

    // The same at the end of a segment, counted from 0.
    __device__ float decay_over_segment(int segment) const {
        return decay_at_end((segment + 1) * Config::kChunksPerSegment);
    }
};

// kSumSide 0: the scan; otherwise the pass over sums, which reads b and c only, has no output warps, and works on
// kSumSide x kSumSide tiles of kRowDim rows and of value columns in a job.
//
// kPacked: of sequences whose parameters are in device memory, instead of one call's.
template <typename T, int kRowDim, int kSumSide, bool kPacked>
struct ScanLayout {
    using Params = std::conditional_t<kPacked, PackedScanParams, SegmentedScanParams>;
    static constexpr bool kWithOutput = kSumSide == 0;
    using SumConfig = SegmentSumConfig<kWithOutput ? 1 : kSumSide>;
    using Config = SegmentedScanConfig<kRowDim>;
    using Element = ScanElement<T>;
    static constexpr int kChunk = Config::kChunk;
    static constexpr int kStages = kWithOutput ? Config::kStages : SumConfig::kStages;
    static constexpr int kRowTiles = Config::kRowTiles;
    static constexpr int kTileBytes = static_cast<int>(Config::kTileBytes);
    static constexpr int kRowSteps = kRowDim / 16;   // k steps of a product over the rows of X
    static constexpr int kTokenSteps = kChunk / 16;  // k steps of a product over a chunk's tokens
    static constexpr int kStateValues = kRowDim / 2; // of a state, per thread
    static constexpr int kWarpsPerGroup = 4;
    static constexpr int kStateGroups = kWithOutput ? 1 : SumConfig::kGroups;
    // Warps that read a stage: a chunk has one output group.
    static constexpr int kReaders = (kStateGroups + (kWithOutput ? 1 : 0)) * kWarpsPerGroup;
    // Tiles of a stage.
    static constexpr int kBTiles = kWithOutput ? kRowTiles : kSumSide;
    static constexpr int kCTiles = kWithOutput ? 1 : kSumSide;

    using ChunkTile = float[32]; // 64 x 64 in a warpgroup's accumulators
    using OperandA = uint32_t[4];

    struct Stage {
        char b[kBTiles * kTileBytes];
        char c[kCTiles * kTileBytes];
    };

    // What output warps need.
    struct Exchange {
        char rows[Config::kRowStages][kRowTiles * kTileBytes];     // a
        char state[Config::kStateBuffers][kRowTiles * kTileBytes]; // X^T [64 value columns][A]
        char out[Config::kOutputBuffers][kTileBytes];              // [tokens][64 value columns]
        ptx::Mbarrier rows_full[Config::kRowStages];
        ptx::Mbarrier rows_empty[Config::kRowStages];
        ptx::Mbarrier state_full[Config::kStateBuffers];
        ptx::Mbarrier state_empty[Config::kStateBuffers];
        float state_scale[Config::kStateBuffers][Config::kValueCols]; // of the rows of X^T, if they are scaled
    };

    struct NoExchange {};

    static constexpr int kWarps = kWithOutput ? Config::kScanThreads / 32 : SumConfig::kThreads / 32;

    // A warp's job of a packed batch. Registers are too few to keep it in.
    struct JobOfWarp {
        const SequenceScan* params;
        int32_t index; // of all jobs
        int32_t head, slice, row_part, first_chunk, end_chunk;
    };

    struct Jobs {
        JobOfWarp of_warp[kWarps];
        ptx::Mbarrier loaded[kStages]; // a job's closing chunk is there, and not yet cleared beyond its tokens
        uint32_t parities;             // of their next phases, a bit each
        int32_t first_place;           // in the ring, of the job whose closing chunk is waited for
    };

    struct NoJobs {};

    struct Shared {
        Stage stage[kStages];
        [[no_unique_address]] std::conditional_t<kWithOutput, Exchange, NoExchange> exchange;
        [[no_unique_address]] std::conditional_t<kPacked, Jobs, NoJobs> packed;
        ptx::Mbarrier full[kStages];
        ptx::Mbarrier empty[kStages];
    };
    static_assert(sizeof(Shared) + Config::kAlignment <=
                  (kWithOutput ? Config::kSharedBytes : SumConfig::kSharedBytes));

    // Chunks [first_chunk, end_chunk) of one head's value columns; none in a sum that nothing needs.
    struct Job {
        int batch;
        int head;
        int slice;
        int row_part; // of the pass over sums; it and slice: the first of kSumSide
        int first_chunk;
        int end_chunk;

        __device__ explicit Job(const JobOfWarp& kept)
            : batch(0),
              head(kept.head),
              slice(kept.slice),
              row_part(kept.row_part),
              first_chunk(kept.first_chunk),
              end_chunk(kept.end_chunk) {}

        __device__ Job(const SequenceScan& p, int index) {
            const auto take = [&](int count) {
                const int place = index % count;
                index /= count;
                return place;
            };
            if constexpr (kWithOutput) {
                row_part = 0;
                slice = take(p.value_slices);
                head = take(p.heads);
                batch = take(p.batch);
                const int job_chunks = p.split ? p.segments_per_job * Config::kChunksPerSegment : p.end_chunk;
                first_chunk = max(index * job_chunks, p.first_chunk);
                end_chunk = min((index + 1) * job_chunks, p.end_chunk);
            } else {
                // The last heads first: by custom they decay slowest, so their sums take longest.
                row_part = take(p.row_parts / kSumSide) * kSumSide;
                slice = take(p.value_slices / kSumSide) * kSumSide;
                const int next_segment = take(p.summed_segments) + 1;
                batch = take(p.batch);
                head = p.heads - 1 - index;
                end_chunk = next_segment * Config::kChunksPerSegment;
                const SegmentSums<Config> sums(p, p.decay_rate[head]);
                const bool needed = !sums.forgets() || next_segment % p.segments_per_job == 0;
                first_chunk = needed ? sums.first_chunk(end_chunk - 1) : end_chunk;
            }
        }

        // Of a part of a packed batch.
        __device__ Job(const PackedScanParams& params, const SequenceScan& p, int part, unsigned index)
            : batch(0), row_part(0) {
            static_assert(kWithOutput);
            const unsigned slices = ptx::opaque(params.value_slices);
            head = static_cast<int>(index / slices);
            slice = static_cast<int>(index % slices);
            const int job_chunks = p.split ? p.segments_per_job * Config::kChunksPerSegment : p.end_chunk;
            first_chunk = max(part * job_chunks, p.first_chunk);
            end_chunk = min((part + 1) * job_chunks, p.end_chunk);
        }

        __device__ int segment() const { return first_chunk / Config::kChunksPerSegment; }
        __device__ int value_column() const { return slice * Config::kValueCols; }
    };

    // A job and the parameters that it is one of: of a packed batch they are read again and again.
    struct WholeCall {
        const SegmentedScanParams& call;
        const Job its_job;

        __device__ const SequenceScan& params() const { return call; }
        __device__ const Job& job() const { return its_job; }
        __device__ int end_chunk() const { return its_job.end_chunk; }
    };

    struct OneSequence {
        Shared& shared;

        __device__ JobOfWarp& kept() const { return shared.packed.of_warp[ptx::opaque(threadIdx.x) / 32]; }
        __device__ const SequenceScan& params() const { return *kept().params; }
        __device__ Job job() const { return Job(kept()); }
        __device__ int end_chunk() const { return kept().end_chunk; }
    };

    using Current = std::conditional_t<kPacked, OneSequence, WholeCall>;

    // A CTA works on jobs blockIdx.x, blockIdx.x + gridDim.x, ...: visit(current) for each of them.
    template <typename Visit>
    __device__ static void for_each_job(const Params& params, Shared& shared, Visit visit) {
        if constexpr (kPacked) {
            const Current current{shared};
#pragma unroll 1
            for (int index = blockIdx.x; index < job_count(params); index += gridDim.x) {
                // Opaque, or what divisions by them need would stay in registers.
                const unsigned jobs_per_part = ptx::opaque(params.jobs_per_part);
                const PackedPart part = params.parts[index / jobs_per_part];
                const SequenceScan& p = params.sequences[part.sequence];
                const Job job = job_of_part(params, p, part.index, index % jobs_per_part);
                if (job.first_chunk == job.end_chunk) continue;
                __syncwarp();
                if (threadIdx.x % 32 == 0)
                    current.kept() = {&p, index, job.head, job.slice, job.row_part, job.first_chunk, job.end_chunk};
                __syncwarp();
                visit(current);
                index = current.kept().index;
            }
        } else {
            const int jobs = job_count(params);
#pragma unroll 1
            for (int index = blockIdx.x; index < jobs; index += gridDim.x) visit(Current{params, Job(params, index)});
        }
    }

    // The chunk of a job that takes the way by Jobs::loaded: the one that may hold another sequence's tokens, or the
    // last.
    __device__ static int closing_chunk(const SequenceScan& p, const Job& job) {
        const bool has_short = job.first_chunk <= p.short_chunk && p.short_chunk < job.end_chunk;
        return has_short ? p.short_chunk : job.end_chunk - 1;
    }

    // Job `index` of a part.
    __device__ static Job job_of_part(const PackedScanParams& params, const SequenceScan& p, int part, unsigned index) {
        if constexpr (kWithOutput) {
            return Job(params, p, part, index);
        } else {
            const unsigned tiles = params.value_slices * params.row_parts / SumConfig::kGroups;
            return Job(p, static_cast<int>((index / tiles * p.summed_segments + part) * tiles + index % tiles));
        }
    }

    __device__ static int job_count(const PackedScanParams& params) {
        return *params.part_count * params.jobs_per_part;
    }

    __device__ static int job_count(const SequenceScan& p) {
        const int sequences = p.batch * p.heads * p.value_slices;
        if (!kWithOutput) return sequences * p.summed_segments * p.row_parts / SumConfig::kGroups;
        return p.split ? sequences * ((p.segments + p.segments_per_job - 1) / p.segments_per_job) : sequences;
    }

    __device__ static ptx::Keep keep_of_output(const SequenceScan& p) {
        return p.b_and_c_recur ? ptx::Keep::kShortly : ptx::Keep::kNormally;
    }

    __device__ static int tokens_of(const SequenceScan& p, int chunk) {
        return chunk == p.short_chunk ? p.short_tokens : kChunk;
    }

    __device__ static int first_token(const SequenceScan& p, int chunk) {
        const int token = (p.backwards ? p.end_chunk - 1 - chunk : chunk) * kChunk;
        return kPacked ? p.token_offset + token : token;
    }

    // False, which the compiler cannot know: see ptx::hold.
    __device__ static bool never(const Params& p) {
        return p.heads < 0;
    }

    // Address of 8 elements in tiles of 64 x 64: row, and column / 8.
    __device__ static uint32_t at(uint32_t tiles, int row, int column8) {
        return tiles + column8 / 8 * kTileBytes + row * 128 + ((column8 ^ row) % 8) * 16;
    }

    // The matrix row whose address this lane gives to ldmatrix and stmatrix for a 16 x 16 part of tiles, operand a's
    // order: rows from `row`, columns from 8 * column8.
    __device__ static uint32_t part_address(uint32_t tiles, int row, int column8) {
        const int lane = threadIdx.x % 32;
        return at(tiles, row + lane % 16, column8 + lane / 16);
    }

    // The same for the transposed part: rows are k.
    __device__ static uint32_t transposed_part_address(uint32_t tiles, int row, int column8) {
        const int lane = threadIdx.x % 32;
        return at(tiles, row + lane % 8 + lane / 16 * 8, column8 + lane / 8 % 2);
    }

    __device__ static int warp_in_group() {
        return threadIdx.x / 32 % kWarpsPerGroup;
    }

    // After a whole warp has finished with what the barrier guards.
    __device__ static void arrive_warp(ptx::Mbarrier& barrier) {
        __syncwarp();
        if (threadIdx.x % 32 == 0) ptx::mbarrier_arrive(barrier);
    }

    // The same for X^T. Its scales are written and read by ordinary instructions, an order among which
    // compute-sanitizer follows from thread to thread only.
    static constexpr int kStateArrivals = Element::kScaled ? kWarpsPerGroup * 32 : kWarpsPerGroup;
    __device__ static void arrive_at_state(ptx::Mbarrier& barrier) {
        if constexpr (Element::kScaled)
            ptx::mbarrier_arrive(barrier);
        else
            arrive_warp(barrier);
    }

    // Place in a ring of kCount buffers, and the parity of its phase.
    template <int kCount>
    struct Ring {
        int index = 0;
        uint32_t parity = 0;

        // steps <= kCount
        __device__ void advance(int steps = 1) {
            index += steps;
            if (index >= kCount) {
                index -= kCount;
                parity ^= 1;
            }
        }
    };
};

} // namespace lattn::cuda
