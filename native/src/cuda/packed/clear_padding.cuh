// Zeros in the rows of the tokens that belong to no sequence. A CTA looks at 64 tokens at a time, one thread each; then
// a warp clears the rows of a token in all heads. Where there is no padding the search is all that is done.
#pragma once

#include "packed/clear_padding_params.h"
#include "packed/sequence.cuh"

namespace lattn::cuda {

struct ClearPadding {
    template <typename Word>
    __device__ static void clear_token(const ClearPaddingParams& p, int64_t token) {
        const int words = p.row_bytes / static_cast<int>(sizeof(Word));
        for (int index = static_cast<int>(threadIdx.x) % 32; index < p.heads * words; index += 32) {
            unsigned char* row = p.data + index / words * p.stride_h + token * p.stride_n;
            reinterpret_cast<Word*>(row)[index % words] = Word{};
        }
    }

    // By CTA `block` of `blocks`.
    __device__ static void run(const ClearPaddingParams& p, int64_t block, int64_t blocks) {
        __shared__ bool padding[kClearPaddingTokens];
        constexpr int kWarps = kClearPaddingThreads / 32;
        for (int64_t first = block * kClearPaddingTokens; first < p.tokens; first += blocks * kClearPaddingTokens) {
            const int own = static_cast<int>(threadIdx.x);
            if (own < kClearPaddingTokens)
                padding[own] = first + own < p.tokens && is_padding(p.packed, first + own);
            __syncthreads();
            for (int i = static_cast<int>(threadIdx.x) / 32; i < kClearPaddingTokens; i += kWarps) {
                if (!padding[i]) continue;
                if (p.vector_aligned)
                    clear_token<uint4>(p, first + i);
                else
                    clear_token<uint16_t>(p, first + i);
            }
            __syncthreads(); // everyone has read the flags
        }
    }
};

} // namespace lattn::cuda
