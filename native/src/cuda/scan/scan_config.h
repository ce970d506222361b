// Tile sizes of the scan kernel, shared by host and device code.
#pragma once

#include <cstddef>

namespace lattn::cuda {

// Shared memory that every GPU from sm_80 on gives to one block (sm_86 and sm_89 have the least).
constexpr std::size_t kPortableSharedBytes = 99 * 1024;

// element_bytes and score_bytes: sizes of q/k/v elements and of the score tile's elements.
template <int kElementBytes, int kScoreBytes, int kRowDim>
struct ScanConfig {
    static constexpr int kChunk = kElementBytes == 4 ? 32 : 64; // tokens
    static constexpr int kValueCols = 64;                       // columns of c, out and X per CTA
    static constexpr int kWarps = 4;                            // each holds 16 columns of X for all rows
    static constexpr int kThreads = kWarps * 32;
    static constexpr int kPad = 8;

    static constexpr int kRowLd = kRowDim + kPad;
    static constexpr int kValueLd = kValueCols + kPad;
    static constexpr int kScoreLd = kChunk + kPad;

    // One stage holds the chunk's a, b and c.
    static constexpr std::size_t kStageBytes = std::size_t{kElementBytes} * kChunk * (2 * kRowLd + kValueLd);
    static constexpr std::size_t kScoreTileBytes = std::size_t{kScoreBytes} * kChunk * kScoreLd;
    static constexpr std::size_t kTableBytes = sizeof(float) * (2 * kChunk + 16) + 32; // powers of g, update weights,
                                                                                       // which tokens

    static constexpr int kStages = 2 * kStageBytes + kScoreTileBytes + kTableBytes <= kPortableSharedBytes ? 2 : 1;
    static constexpr std::size_t kSharedBytes = kStages * kStageBytes + kScoreTileBytes + kTableBytes;

    static_assert(kRowDim % 64 == 0 && kSharedBytes <= kPortableSharedBytes);
    static_assert(kStageBytes % 16 == 0 && kScoreTileBytes % 16 == 0);
};

} // namespace lattn::cuda
