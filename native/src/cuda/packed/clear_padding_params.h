// Parameters of the kernel that writes zeros for the tokens of no sequence, shared by host and device code.
#pragma once

#include "packed/packed_batch.h"

namespace lattn::cuda {

struct ClearPaddingParams {
    PackedBatch packed;
    unsigned char* data;        // [heads, tokens, row]
    int64_t stride_h, stride_n; // bytes
    int64_t tokens;
    int32_t heads;
    int32_t row_bytes;      // a multiple of 16
    int32_t vector_aligned; // every row starts at a multiple of 16 bytes
};

constexpr int kClearPaddingThreads = 128;
constexpr int kClearPaddingTokens = kClearPaddingThreads; // of a CTA at a time

} // namespace lattn::cuda
