// Tile sizes of the decay-gradient kernel, shared by host and device code.
#pragma once

#include <cstddef>

namespace lattn::cuda {

template <int kElementBytes>
struct DecayGradConfig {
    static constexpr int kChunk = kElementBytes == 4 ? 32 : 64; // tokens
    static constexpr int kSlice = 64;                           // columns of D and of E per CTA
    static constexpr int kWarps = 4;
    static constexpr int kThreads = kWarps * 32;
    static constexpr int kLd = kSlice + 8;
    static constexpr int kStages = 2;

    static constexpr std::size_t kStageBytes = std::size_t{kElementBytes} * kChunk * 4 * kLd; // q, k, v, do
    static constexpr std::size_t kTableBytes = sizeof(float) * 3 * (kChunk + 8) + 32;         // weights, which tokens
    static constexpr std::size_t kSharedBytes = kStages * kStageBytes + kTableBytes + sizeof(double) * kWarps;
    static_assert(kSharedBytes <= 99 * 1024);
};

} // namespace lattn::cuda
