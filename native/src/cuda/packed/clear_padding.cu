#include "packed/clear_padding.cuh"

extern "C" __global__ void __launch_bounds__(lattn::cuda::kClearPaddingThreads)
    lattn_clear_padding(const __grid_constant__ lattn::cuda::ClearPaddingParams params) {
    lattn::cuda::ClearPadding::run(params);
}
