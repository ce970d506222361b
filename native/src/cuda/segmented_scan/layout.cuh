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

// Whether one job of a sequence ends, and the next begins, where `segment` begins.
__device__ __forceinline__ bool starts_job(const CallScan& call, const SequenceScan& p, int segment) {
    return (segment + call.first_job_lacks) % p.segments_per_job == 0;
}

// Where the sums of a head begin: at segments, and within them where what came before is forgotten at their end.
template <typename Config>
struct SegmentSums {
    const SequenceScan& p;
    float rate;
    int restart; // chunk of a segment, 0: none

    __device__ SegmentSums(const SequenceScan& p_, float rate_) : SegmentSums(p_, rate_, restart_of(rate_)) {}
    __device__ SegmentSums(const SequenceScan& p_, float rate_, int restart_) : p(p_), rate(rate_), restart(restart_) {}

    __device__ static int restart_of(float rate) { return Config::kChunksPerSegment - chunks_in_sum<Config>(rate); }

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

// kSums: the pass over sums, which reads b and c only, has no output warps, and works on kRowDim rows of a state.
//
// kPacked: of sequences whose parameters are in device memory, instead of one call's.
template <typename T, int kRowDim, bool kSums, bool kPacked>
struct ScanLayout {
    using Params = std::conditional_t<kPacked, PackedScanParams, SegmentedScanParams>;
    static constexpr bool kWithOutput = !kSums;
    using SumConfig = SegmentSumConfig<kSums ? kRowDim : kSumRows>;
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
    // Warps that read a stage: a chunk has one output group.
    static constexpr int kReaders = (kWithOutput ? 2 : 1) * kWarpsPerGroup;
    // Warps that walk the jobs of a packed batch.
    static constexpr int kLoadWarps = kWithOutput ? 2 : 1;
    static constexpr int kJobReaders = (kWithOutput ? 1 + Config::kOutputGroups : 1) * kWarpsPerGroup + kLoadWarps;

    // Whether states of a packed batch may be read and written by tensor copies: into places of the ring of stages, and
    // from the buffers of X^T. Each has room for one part.
    static constexpr bool kCopiesStates = kPacked && kWithOutput && Config::kBeforeInRegisters;
    static constexpr int kStateColumnBytes = Config::kStatePartRows * 128; // of 32 columns of a part of a state
    // An output group does not look at the stages that hold states. If two chunks and the states before them fit into
    // the ring, the X^T of its last chunk tells it that no phase it skips is still to come.
    static_assert(!kCopiesStates || kStages >= Config::kOutputGroups * (1 + kStateParts));

    using ChunkTile = float[32]; // 64 x 64 in a warpgroup's accumulators
    using OperandA = uint32_t[4];

    struct Stage {
        char b[kRowTiles * kTileBytes];
        char c[kTileBytes];
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
        struct NotScaled {};
        using StateScale = float[Config::kStateBuffers][Config::kValueCols];
        [[no_unique_address]] std::conditional_t<Element::kScaled, StateScale, NotScaled> state_scale; // of X^T's rows
    };

    struct NoExchange {};

    // What a job of a packed batch begins with, read at once.
    struct alignas(16) JobBeginning {
        int32_t head; // -1: there are no more jobs
        int32_t first_chunk, end_chunk;
        uint32_t traits; // where tensor copies may move states: kStartsFromCopy, ...
        float rate;
        int32_t restart; // of SegmentSums
        float decay[2];  // g^m of a whole chunk of m tokens, and of the short one
    };

    static constexpr uint32_t kStartsFromCopy = 1;  // of a state, in the ring of stages
    static constexpr uint32_t kStartsFromState = 2; // of another kind
    static constexpr uint32_t kEndsInCopy = 4;      // the final state goes by way of the buffers of X^T
    static constexpr uint32_t kEndsInState = 8;     // of another kind
    static constexpr uint32_t kStartsShort = 16;    // with the short chunk

    // A job of a packed batch, as its warps are told. Registers are too few to keep it in.
    struct PackedJob {
        JobBeginning beginning;
        SequenceScan sequence;
        int32_t slice, row_part;
    };

    // Weights in the state, as a thread of the state warps takes them: of tokens 2(lane % 4) and the next, 8 later and
    // the next, of each 16 of a chunk.
    struct alignas(16) StepWeights {
        typename Element::WeightPair pair[2];
    };
    using ChunkWeights = StepWeights[kTokenSteps];
    using JobWeights = ChunkWeights[2][4]; // of a whole chunk and of the short one, by lane % 4

    // What is handed ahead, to all warps and to those that form states.
    static constexpr int kJobs = 4;
    static constexpr int kJobWeights = Element::kScaled ? 1 : 2; // shared memory has no more

    struct Jobs {
        JobWeights weights[kJobWeights];
        PackedJob job[kJobs];
        ptx::Mbarrier job_full[kJobs];
        ptx::Mbarrier job_empty[kJobs];
        ptx::Mbarrier weights_full[kJobWeights];
        ptx::Mbarrier weights_empty[kJobWeights];
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
        int row_part; // of the pass over sums: the first of kRowTiles
        int first_chunk;
        int end_chunk;

        __device__ explicit Job(const PackedJob& job)
            : batch(0),
              head(job.beginning.head),
              slice(job.slice),
              row_part(job.row_part),
              first_chunk(job.beginning.first_chunk),
              end_chunk(job.beginning.end_chunk) {}

        __device__ Job(const CallScan& call, const SequenceScan& p, int index) {
            const auto take = [&](int count) {
                const int place = index % count;
                index /= count;
                return place;
            };
            if constexpr (kWithOutput) {
                row_part = 0;
                slice = take(call.value_slices);
                head = take(call.heads);
                batch = take(call.batch);
                if (call.first_job_lacks > 0) index = 1 - index; // the long ones first
                const int job_chunks = p.split ? p.segments_per_job * Config::kChunksPerSegment : p.end_chunk;
                const int end = (index + 1) * job_chunks - call.first_job_lacks * Config::kChunksPerSegment;
                first_chunk = max(end - job_chunks, p.first_chunk);
                end_chunk = min(end, p.end_chunk);
            } else {
                // The last heads first: by custom they decay slowest, so their sums take longest.
                row_part = take(call.row_parts / kRowTiles) * kRowTiles;
                slice = take(call.value_slices);
                const int next_segment = take(p.summed_segments) + 1;
                batch = take(call.batch);
                head = call.heads - 1 - index;
                end_chunk = next_segment * Config::kChunksPerSegment;
                const SegmentSums<Config> sums(p, call.decay_rate[head]);
                const bool needed = !sums.forgets() || starts_job(call, p, next_segment);
                first_chunk = needed ? sums.first_chunk(end_chunk - 1) : end_chunk;
            }
        }

        // Of a part of a packed batch.
        __device__ Job(const CallScan& call, const SequenceScan& p, int part, unsigned index) : batch(0), row_part(0) {
            static_assert(kWithOutput);
            head = static_cast<int>(index / call.value_slices);
            slice = static_cast<int>(index % call.value_slices);
            const int job_chunks = p.split ? p.segments_per_job * Config::kChunksPerSegment : p.end_chunk;
            first_chunk = max(part * job_chunks, p.first_chunk);
            end_chunk = min((part + 1) * job_chunks, p.end_chunk);
        }

        __device__ int segment() const { return first_chunk / Config::kChunksPerSegment; }
        __device__ int value_column() const { return slice * Config::kValueCols; }
    };

    // A job, and what it is one of.
    struct OfCall {
        const SegmentedScanParams& params;
        const Job its_job;

        __device__ const CallScan& call() const { return params; }
        __device__ const SequenceScan& sequence() const { return params; }
        __device__ const Job& job() const { return its_job; }
        __device__ int end_chunk() const { return its_job.end_chunk; }
        __device__ float rate() const { return params.decay_rate[its_job.head]; }
    };

    struct OfPackedBatch {
        const PackedScanParams& params;
        Jobs& jobs;
        const unsigned turn;
        const JobBeginning beginning; // for use at once: later most roles lack registers for it, and its_job() has it

        // Its address is not kept in a register besides its turn.
        __device__ const PackedJob& its_job() const { return jobs.job[ptx::opaque(turn) % kJobs]; }
        __device__ const CallScan& call() const { return params.call; }
        __device__ const SequenceScan& sequence() const { return its_job().sequence; }
        __device__ Job job() const { return Job(its_job()); }
        __device__ int end_chunk() const { return its_job().beginning.end_chunk; }
        __device__ float rate() const { return its_job().beginning.rate; }
        __device__ bool is_short(int chunk) const { return chunk == sequence().short_chunk; }

        // Of the warps that form states.
        __device__ void wait_for_weights() const {
            ptx::mbarrier_wait(jobs.weights_full[turn % kJobWeights], turn / kJobWeights % 2);
        }
        __device__ const JobWeights& weights() const { return jobs.weights[ptx::opaque(turn) % kJobWeights]; }
        __device__ void leave_weights() const { arrive_warp(jobs.weights_empty[ptx::opaque(turn) % kJobWeights]); }
    };

    using Current = std::conditional_t<kPacked, OfPackedBatch, OfCall>;

    // Calls visit(current) for each job of this CTA: blockIdx.x, blockIdx.x + gridDim.x, ...
    template <typename Visit>
    __device__ static void for_each_job(const Params& params, Shared& shared, Visit visit) {
        if constexpr (kPacked) {
#pragma unroll 1
            for (unsigned turn = 0;; ++turn) {
                ptx::mbarrier_wait(shared.packed.job_full[turn % kJobs], turn / kJobs % 2);
                const JobBeginning beginning = shared.packed.job[turn % kJobs].beginning;
                if (beginning.head < 0) return;
                visit(Current{params, shared.packed, turn, beginning});
                turn = ptx::opaque(turn);
                arrive_warp(shared.packed.job_empty[turn % kJobs]);
            }
        } else {
            const int jobs = job_count(params);
            const int long_jobs = kWithOutput && params.first_job_lacks > 0 ? jobs / 2 : 0;
            const int step = static_cast<int>(blockIdx.x) < long_jobs ? jobs : static_cast<int>(gridDim.x) - long_jobs;
#pragma unroll 1
            for (int index = blockIdx.x; index < jobs; index += step)
                visit(Current{params, Job(params, params, index)});
        }
    }

    __device__ static int job_count(const CallScan& p) {
        const int sequences = p.batch * p.heads * p.value_slices;
        if (!kWithOutput) return sequences * p.summed_segments * p.row_parts / kRowTiles;
        if (!p.split) return sequences;
        return sequences * ((p.segments + p.first_job_lacks + p.segments_per_job - 1) / p.segments_per_job);
    }

    // A sequence that is cut starts from a copy in the workspace.
    __device__ static uint32_t traits_of(const PackedJob& job) {
        static_assert(kCopiesStates);
        const SequenceScan& p = job.sequence;
        const bool copies = p.copied_slot >= 0;
        uint32_t traits = job.beginning.first_chunk == p.short_chunk ? kStartsShort : 0;
        if (p.initial.data != nullptr || p.split) traits |= copies && !p.split ? kStartsFromCopy : kStartsFromState;
        if (p.final.data != nullptr && job.beginning.end_chunk == p.end_chunk)
            traits |= copies ? kEndsInCopy : kEndsInState;
        return traits;
    }

    // Places of the ring of stages that hold the state a job starts from, ahead of its chunks.
    __device__ static int places_of_state(const Current& current) {
        if constexpr (kCopiesStates)
            return current.its_job().beginning.traits & kStartsFromCopy ? kStateParts : 0;
        else
            return 0;
    }

    // Whether the buffers of X^T take the state that a job ends with, after the X^T of its chunks.
    __device__ static bool copies_final_state(const Current& current) {
        if constexpr (kCopiesStates)
            return current.its_job().beginning.traits & kEndsInCopy;
        else
            return false;
    }

    __device__ static ptx::Keep keep_of_output(const CallScan& call) {
        return call.b_and_c_recur ? ptx::Keep::kShortly : ptx::Keep::kNormally;
    }

    __device__ static int tokens_of(const SequenceScan& p, int chunk) {
        return chunk == p.short_chunk ? p.short_tokens : kChunk;
    }

    __device__ static int first_token(const CallScan& call, const SequenceScan& p, int chunk) {
        const int token = (call.backwards ? p.end_chunk - 1 - chunk : chunk) * kChunk;
        return kPacked ? p.token_offset + token : token;
    }

    // A box of kRows tokens from `first_token` on, of which `tokens` are the sequence's. In a packed batch the others
    // are the next one's: the box holds zeros for them, and they are not stored (encode_boxed()).
    template <int kRows>
    __device__ static ptx::Coordinates box_at(int column, int first_token, int tokens, int head, int batch) {
        if constexpr (kPacked)
            return {column, kRows - tokens, first_token + tokens, head};
        else
            return {column, first_token, head, batch};
    }

    // Weights in the state of two tokens of a chunk of so many. Beyond the chunk's tokens b and c are zero; any finite
    // weight will do.
    __device__ static typename Element::WeightPair token_weights(const CallScan& call, float rate, int tokens,
                                                                 int token) {
        const int first = call.backwards ? token + 1 : max(tokens - 1 - token, 0);
        const int second = call.backwards ? token + 2 : max(tokens - 2 - token, 0);
        return Element::weight_pair(expf(-rate * static_cast<float>(first)), expf(-rate * static_cast<float>(second)));
    }

    __device__ static const CallScan& call_of(const SegmentedScanParams& params) {
        return params;
    }
    __device__ static const CallScan& call_of(const PackedScanParams& params) {
        return params.call;
    }

    // False, which the compiler cannot know: see ptx::hold.
    __device__ static bool never(const Params& params) {
        return call_of(params).heads < 0;
    }

    // Address of 8 elements in tiles of 64 x 64: row, and column / 8.
    __device__ static uint32_t at(uint32_t tiles, uint32_t row, uint32_t column8) {
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
