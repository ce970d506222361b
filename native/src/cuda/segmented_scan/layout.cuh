// What the roles of the segmented scan share: shared memory, the addresses in its tiles, rings of buffers, and the jobs
// of a CTA.
#pragma once

#include <type_traits>

#include "ptx/mbarrier.cuh"
#include "segmented_scan/element.cuh"
#include "segmented_scan/segmented_scan_config.h"
#include "segmented_scan/segmented_scan_params.h"

namespace lattn::cuda {

// kWithOutput: the scan; otherwise the pass over sums, which reads b and c only and has no output warps.
template <typename T, int kRowDim, bool kWithOutput>
struct ScanLayout {
    using Config = SegmentedScanConfig<kRowDim>;
    using Element = ScanElement<T>;
    static constexpr int kChunk = Config::kChunk;
    static constexpr int kStages = kWithOutput ? Config::kStages : Config::kSumStages;
    static constexpr int kRowTiles = Config::kRowTiles;
    static constexpr int kTileBytes = static_cast<int>(Config::kTileBytes);
    static constexpr int kRowSteps = kRowDim / 16;   // k steps of a product over the rows of X
    static constexpr int kTokenSteps = kChunk / 16;  // k steps of a product over a chunk's tokens
    static constexpr int kStateValues = kRowDim / 2; // of a state, per thread
    static constexpr int kWarpsPerGroup = 4;
    static constexpr int kGroups = kWithOutput ? 2 : 1; // that read a stage

    using ChunkTile = float[32]; // 64 x 64 in a warpgroup's accumulators
    using OperandA = uint32_t[4];

    struct ScanStage {
        char a[kRowTiles * kTileBytes];
        char b[kRowTiles * kTileBytes];
        char c[kTileBytes];
    };

    struct SumStage {
        char b[kRowTiles * kTileBytes];
        char c[kTileBytes];
    };

    using Stage = std::conditional_t<kWithOutput, ScanStage, SumStage>;

    struct Exchange {
        char state[Config::kStateBuffers][kRowTiles * kTileBytes]; // X^T [64 value columns][A]
        char out[Config::kOutputBuffers][kTileBytes];              // [tokens][64 value columns]
        ptx::Mbarrier state_full[Config::kStateBuffers];
        ptx::Mbarrier state_empty[Config::kStateBuffers];
        float state_scale[Config::kStateBuffers][Config::kValueCols]; // of the rows of X^T, if they are scaled
    };

    struct NoExchange {};

    struct Shared {
        Stage stage[kStages];
        // Between state and output warps.
        [[no_unique_address]] std::conditional_t<kWithOutput, Exchange, NoExchange> exchange;
        ptx::Mbarrier full[kStages];
        ptx::Mbarrier empty[kStages];
    };
    static_assert(sizeof(Shared) + Config::kAlignment <=
                  (kWithOutput ? Config::kSharedBytes : Config::kSumSharedBytes));

    // Chunks [first_chunk, end_chunk) of one head's value columns.
    struct Job {
        int batch;
        int head;
        int slice;
        int first_chunk;
        int end_chunk;

        __device__ Job(const SegmentedScanParams& p, int index) {
            const int sequences = p.batch * p.heads * p.value_slices;
            const int sequence = index % sequences;
            slice = sequence % p.value_slices;
            head = sequence / p.value_slices % p.heads;
            batch = sequence / p.value_slices / p.heads;
            const int chunks = static_cast<int>((p.tokens + kChunk - 1) / kChunk);
            first_chunk = 0;
            end_chunk = chunks;
            if (p.split) {
                // The last segments first: their b and c were read last by the pass over sums.
                const int round = index / sequences;
                const int segment = kWithOutput ? p.segments - 1 - round : round;
                first_chunk = segment * Config::kChunksPerSegment;
                end_chunk = min(first_chunk + Config::kChunksPerSegment, chunks);
            }
        }

        __device__ int segment() const { return first_chunk / Config::kChunksPerSegment; }
        __device__ int value_column() const { return slice * Config::kValueCols; }
    };

    // A CTA works on jobs blockIdx.x, blockIdx.x + gridDim.x, ...
    __device__ static int job_count(const SegmentedScanParams& p) {
        const int sequences = p.batch * p.heads * p.value_slices;
        return p.split ? sequences * (kWithOutput ? p.segments : p.segments - 1) : sequences;
    }

    // Tokens of a chunk; only the last one of a sequence may have fewer than kChunk.
    __device__ static int tokens_of(const SegmentedScanParams& p, int chunk) {
        return static_cast<int>(min(int64_t{kChunk}, p.tokens - int64_t{chunk} * kChunk));
    }

    // False, which the compiler cannot know: see ptx::hold.
    __device__ static bool never(const SegmentedScanParams& p) { return p.tokens < 0; }

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

    __device__ static int warp_in_group() { return threadIdx.x / 32 % kWarpsPerGroup; }

    // After a whole warp has finished with what the barrier guards.
    __device__ static void arrive_warp(ptx::Mbarrier& barrier) {
        __syncwarp();
        if (threadIdx.x % 32 == 0) ptx::mbarrier_arrive(barrier);
    }

    // Place in a ring of kCount buffers, and the parity of its phase.
    template <int kCount>
    struct Ring {
        int index = 0;
        uint32_t parity = 0;

        __device__ void advance() {
            if (++index == kCount) {
                index = 0;
                parity ^= 1;
            }
        }
    };
};

} // namespace lattn::cuda
