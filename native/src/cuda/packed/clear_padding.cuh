// Zeros in the rows of the tokens that belong to no sequence. A warp looks at 32 tokens at a time, and clears the rows
// of each of those in all heads. Where there is no padding the search is all that is done.
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

    // By warp `worker` of `workers`.
    template <typename IsPadding>
    __device__ static void run(const ClearPaddingParams& p, int64_t worker, int64_t workers, IsPadding is_padding) {
        for (int64_t first = worker * 32; first < p.tokens; first += workers * 32) {
            const int64_t own = first + static_cast<int64_t>(threadIdx.x) % 32;
            unsigned padding = __ballot_sync(0xffffffffu, own < p.tokens && is_padding(own));
            for (; padding != 0; padding &= padding - 1) {
                const int64_t token = first + __ffs(static_cast<int>(padding)) - 1;
                if (p.vector_aligned)
                    clear_token<uint4>(p, token);
                else
                    clear_token<uint16_t>(p, token);
            }
        }
    }

    __device__ static void run(const ClearPaddingParams& p, int64_t worker, int64_t workers) {
        run(p, worker, workers, [&](int64_t token) { return is_padding(p.packed, token); });
    }

    // By a grid of kClearPaddingThreads threads per CTA.
    __device__ static void run(const ClearPaddingParams& p) {
        constexpr int kWarps = kClearPaddingThreads / 32;
        run(p, int64_t{blockIdx.x} * kWarps + threadIdx.x / 32, int64_t{gridDim.x} * kWarps);
    }
};

} // namespace lattn::cuda
