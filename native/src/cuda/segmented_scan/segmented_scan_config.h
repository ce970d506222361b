// Tile sizes of the segmented scan, shared by host and device code.
#pragma once

#include <cstddef>
#include <cstdint>

namespace lattn::cuda {

// Tokens of a segment, counted from the call's first token. Sums are formed within segments and combined in order, so a
// call that is split at a multiple of this gives the same bits as the whole.
constexpr int kSegmentTokens = 2048;

// Nats of decay after which a segment's sum is without a token: its weight is below 2^-40 then.
constexpr float kForgottenNats = 27.8f;

// A sequence is cut into jobs where a single one would be longer than so many quarters of what each multiprocessor has
// to do.
constexpr int64_t kLongestJobQuarters = 5;

// Tokens by which the beginnings of sequences of two segments or more differ at least.
constexpr int64_t kCutSequenceTokens = kSegmentTokens + 1;

// Shared memory of one block on sm_90.
constexpr std::size_t kHopperSharedBytes = 227 * 1024;

// The largest row dimension of which registers hold S beside U; S of larger ones lies in the workspace.
constexpr int kBeforeInRegistersDim = 128;

// Sums of a sequence up to which every job combines those before it itself: sooner than a pass more.
constexpr int kSumsCombinedByJobs = 4;

// Stages of a ring in so many bytes; more than six hide nothing further.
constexpr int stages_of(std::size_t bytes, std::size_t stage_bytes) {
    return bytes / stage_bytes < 6 ? static_cast<int>(bytes / stage_bytes) : 6;
}

constexpr int kGroupThreads = 128; // of a warpgroup

// Tensor copies move a job's state of fp32 between a pool and shared memory in two parts, each half of its rows, in
// boxes of 32 columns, 128 bytes, and all rows of a part. Smaller boxes cost more per byte.
constexpr int kStateParts = 2;
constexpr int kStateBoxColumns = 32;
constexpr int state_part_rows(int64_t row_dim) {
    return static_cast<int>(row_dim) / kStateParts;
}

// Rows of a state that a warpgroup of the pass over sums has.
constexpr int kSumRows = 64;

template <int kRowDim>
struct SegmentedScanConfig {
    static constexpr int kChunk = 64;      // tokens
    static constexpr int kValueCols = 64;  // columns of c, out and X per CTA
    static constexpr int kOutputRows = 16; // tokens that an output warp stores at once
    static constexpr int kChunksPerSegment = kSegmentTokens / kChunk;
    static constexpr int kPrefetchedChunks = 4; // of the first job of a CTA, of a packed batch of a few sequences

    // Warpgroups: one carries the state, then those that compute the output, chunk by chunk in turn, then one that
    // loads with two of its warps and gives its registers to the others.
    static constexpr int kOutputGroups = kRowDim <= 128 ? 2 : 1;
    static constexpr int kScanThreads = (2 + kOutputGroups) * kGroupThreads;
    // Per thread of each role; together at most what a launch of so many threads gets.
    static constexpr int kStateRegisters = kOutputGroups == 2 ? 232 : 240;
    static constexpr int kOutputRegisters = kOutputGroups == 2 ? 128 : 240;
    static constexpr int kLoadRegisters = 24;
    // In a packed batch, where a warp that hands out jobs needs more, and the others less.
    static constexpr int kPackedStateRegisters = kStateRegisters - 8;
    static constexpr int kPackedLoadRegisters = 32;
    static constexpr int kCombineThreads = 128;

    // Tiles of 64 rows by 64 elements of 16 bits, with the 128-byte swizzle.
    static constexpr std::size_t kTileBytes = 64 * 128;
    static constexpr int kRowTiles = kRowDim / 64;

    // q and k, v have rings of their own: q is in registers long before k and v are done with.
    static constexpr std::size_t kStageBytes = (kRowTiles + 1) * kTileBytes; // b, c of a chunk
    static constexpr std::size_t kRowStageBytes = kRowTiles * kTileBytes;    // a of a chunk
    static constexpr std::size_t kStateBytes = kRowTiles * kTileBytes;       // X^T, rounded
    static constexpr int kRowStages = 2;
    static constexpr int kStateBuffers = 2;
    static constexpr int kOutputBuffers = 2;
    static constexpr std::size_t kTableBytes = 2048; // barriers, scales, jobs
    // The launch does not promise the alignment of tiles.
    static constexpr std::size_t kAlignment = 1024;

    static constexpr std::size_t kOtherBytes = kRowStages * kRowStageBytes + kStateBuffers * kStateBytes +
                                               kOutputBuffers * kTileBytes + kTableBytes + kAlignment;
    static constexpr int kStages = stages_of(kHopperSharedBytes - kOtherBytes, kStageBytes);
    static constexpr std::size_t kSharedBytes = kStages * kStageBytes + kOtherBytes;

    // A state of one CTA: kRowDim / 2 values of each of kGroupThreads threads, value i of all threads side by side.
    static constexpr int kStateFloats = kRowDim * kValueCols;
    static constexpr bool kBeforeInRegisters = kRowDim <= kBeforeInRegistersDim;
    static constexpr int kStatePartRows = state_part_rows(kRowDim);

    // An output group waits for every phase of the buffers that it uses, since those are its own.
    static_assert(kRowDim % 64 == 0 && kStages >= 2 && kStages % kOutputGroups == 0 &&
                  kRowStages % kOutputGroups == 0 && kStateBuffers % kOutputGroups == 0);
};

// The pass over sums. A CTA has kRowDim rows, 64 or 128, and 64 value columns of a state.
//    64: six stages, which bounds the time of a sum; the only form for odd numbers of tiles
//   128: values are weighed once instead of twice, and fewer bytes cross from L2; for sums that fill the GPU
template <int kRowDim>
struct SegmentSumConfig {
    using Config = SegmentedScanConfig<kRowDim>;
    static_assert(kRowDim == kSumRows || kRowDim == 2 * kSumRows);
    static constexpr int kThreads = kGroupThreads + 32;
    static constexpr int kPackedThreads = kThreads + 32; // with a warp that hands out jobs
    static constexpr int kCtas = 2;                      // per SM
    static constexpr std::size_t kOtherBytes = Config::kTableBytes + Config::kAlignment;
    // A CTA costs 1 KB more than it asks for.
    static constexpr int kStages = stages_of(kHopperSharedBytes / kCtas - 1024 - kOtherBytes, Config::kStageBytes);
    static constexpr std::size_t kSharedBytes = kStages * Config::kStageBytes + kOtherBytes;
};

} // namespace lattn::cuda
