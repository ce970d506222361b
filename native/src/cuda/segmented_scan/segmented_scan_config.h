// Tile sizes of the segmented scan, shared by host and device code.
#pragma once

#include <cstddef>

namespace lattn::cuda {

// Tokens of a segment, counted from the call's first token. Sums are formed within segments and combined in order, so a
// call that is split at a multiple of this gives the same bits as the whole.
#ifdef LATTN_SEG
constexpr int kSegmentTokens = LATTN_SEG;
#else
constexpr int kSegmentTokens = 1024;
#endif

// Shared memory of one block on sm_90.
constexpr std::size_t kHopperSharedBytes = 227 * 1024;

// The largest row dimension of which registers hold S beside U; S of larger ones lies in the workspace.
constexpr int kBeforeInRegistersDim = 128;

// Stages of a ring in so many bytes; more than six hide nothing further.
constexpr int stages_of(std::size_t bytes, std::size_t stage_bytes) {
    return bytes / stage_bytes < 6 ? static_cast<int>(bytes / stage_bytes) : 6;
}

template <int kRowDim>
struct SegmentedScanConfig {
    static constexpr int kChunk = 64;     // tokens
    static constexpr int kValueCols = 64; // columns of c, out and X per CTA
    static constexpr int kChunksPerSegment = kSegmentTokens / kChunk;

    static constexpr int kStateThreads = 128;  // warps 0 to 3 carry the state
    static constexpr int kOutputThreads = 128; // warps 4 to 7 compute the output
    static constexpr int kLoadThreads = 128;   // warp 8 loads; a whole warpgroup gives its registers to the others
    static constexpr int kScanThreads = kStateThreads + kOutputThreads + kLoadThreads;
    static constexpr int kSumThreads = kStateThreads + 32; // the state warps and one that loads
    // CTAs of the pass over sums per SM: registers have room for two where a state is small.
    static constexpr int kSumCtas = kRowDim <= 128 ? 2 : 1;

    // Per thread of each role; together at most the 504 that a launch of three warpgroups gets.
    static constexpr int kStateRegisters = 240;
    static constexpr int kOutputRegisters = 240;
    static constexpr int kLoadRegisters = 24;
    static constexpr int kCombineThreads = 128;

    // Tiles of 64 rows by 64 elements of 16 bits, with the 128-byte swizzle.
    static constexpr std::size_t kTileBytes = 64 * 128;
    static constexpr int kRowTiles = kRowDim / 64;

    static constexpr std::size_t kStageBytes = (2 * kRowTiles + 1) * kTileBytes; // a, b, c of a chunk
    static constexpr std::size_t kStateBytes = kRowTiles * kTileBytes;           // X^T, rounded
    static constexpr int kStateBuffers = 2;
    static constexpr int kOutputBuffers = 2;
    static constexpr std::size_t kFixedBytes = kStateBuffers * kStateBytes + kOutputBuffers * kTileBytes;
    static constexpr std::size_t kTableBytes = 1024; // barriers, powers of g, scales

    // The launch does not promise the alignment of tiles.
    static constexpr std::size_t kAlignment = 1024;
    static constexpr std::size_t kOtherBytes = kFixedBytes + kTableBytes + kAlignment;
    static constexpr int kStages = stages_of(kHopperSharedBytes - kOtherBytes, kStageBytes);
    static constexpr std::size_t kSharedBytes = kStages * kStageBytes + kOtherBytes;

    // The same for the pass over sums, which loads b and c only. A CTA costs 1 KB more than it asks for.
    static constexpr std::size_t kSumStageBytes = (kRowTiles + 1) * kTileBytes;
    static constexpr std::size_t kSumOtherBytes = kTableBytes + kAlignment;
    static constexpr int kSumStages =
        stages_of(kHopperSharedBytes / kSumCtas - 1024 - kSumOtherBytes, kSumStageBytes);
    static constexpr std::size_t kSumSharedBytes = kSumStages * kSumStageBytes + kSumOtherBytes;

    // A state of one CTA: kRowDim / 2 values of each of kStateThreads threads, value i of all threads side by side.
    static constexpr int kStateFloats = kRowDim * kValueCols;
    static constexpr bool kBeforeInRegisters = kRowDim <= kBeforeInRegistersDim;

    static_assert(kRowDim % 64 == 0 && kStages >= 2 && kSumStages >= 2);
};

} // namespace lattn::cuda
