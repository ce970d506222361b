// Zeros in the rows of the tokens that belong to no sequence. A CTA looks at 64 tokens at a time, one thread each; then
// a warp clears the rows of a token in all heads. Where there is no padding the search is all that is done.
#include "packed/clear_padding_params.h"
#include "packed/sequence.cuh"

namespace lattn::cuda {

template <typename Word>
__device__ void clear_token(const ClearPaddingParams& p, int64_t token) {
    const int words = p.row_bytes / static_cast<int>(sizeof(Word));
    for (int index = static_cast<int>(threadIdx.x) % 32; index < p.heads * words; index += 32) {
        unsigned char* row = p.data + index / words * p.stride_h + token * p.stride_n;
        reinterpret_cast<Word*>(row)[index % words] = Word{};
    }
}

__device__ void clear_padding(const ClearPaddingParams& p) {
    __shared__ bool padding[kClearPaddingTokens];
    constexpr int kWarps = kClearPaddingThreads / 32;
    const int64_t step = static_cast<int64_t>(gridDim.x) * kClearPaddingTokens;
    for (int64_t first = static_cast<int64_t>(blockIdx.x) * kClearPaddingTokens; first < p.tokens; first += step) {
        const int own = static_cast<int>(threadIdx.x);
        if (own < kClearPaddingTokens) padding[own] = first + own < p.tokens && is_padding(p.packed, first + own);
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

} // namespace lattn::cuda

extern "C" __global__ void __launch_bounds__(lattn::cuda::kClearPaddingThreads)
    lattn_clear_padding(const __grid_constant__ lattn::cuda::ClearPaddingParams params) {
    lattn::cuda::clear_padding(params);
}
