// Parameters and sizes of the activation kernel, shared by host and device code.
#pragma once

#include <cstdint>

namespace lattn::cuda {

struct ActivationParams {
    const void* input; // [count]
    const void* grad;  // [count], of activation(input); NULL: the output is not a gradient
    void* output;      // [count], may be an input
    int64_t count;
    int32_t activation; // lattn_activation
    int32_t aligned;    // 1: all begin at multiples of kActivationBytes
};

constexpr int kActivationThreads = 256;
constexpr int kActivationBytes = 16; // of a piece, what a thread loads at once
constexpr int kActivationPieces = 2; // of a thread, all loads under way at once
constexpr int kActivationCtaBytes = kActivationThreads * kActivationPieces * kActivationBytes;

} // namespace lattn::cuda
