#include "cuda/scan/scan_launch.h"

#include "common/problem.h"
#include "cuda/scan/scan_config.h"

namespace lattn::cuda {

ScanParams scan_params(const lattn_problem& problem, const void* decay_rate) {
    ScanParams params{};
    params.decay_rate = static_cast<const float*>(decay_rate);
    params.tokens = problem.tokens;
    params.block_size = problem.block_size;
    params.heads = static_cast<int32_t>(problem.heads_v);
    params.shift = 1;
    params.pair_scale = static_cast<float>(problem.scale);
    params.read_scale = static_cast<float>(problem.scale);
    params.update_scale = 1.0f;
    return params;
}

Status launch_scan(Device& device, const lattn_problem& problem, ScanParams params, CUstream stream) {
    constexpr int64_t kValueCols = ScanConfig<2, 2, 64>::kValueCols; // the same in every instantiation
    int kernel = 0;
    LATTN_RETURN_IF_ERROR(find_scan(problem.dtype, problem.allow_tf32 != 0, params.row_dim, kernel));
    params.value_slices = static_cast<int32_t>(ceil_div(params.value_dim, kValueCols));
    return device.launch(kernel, problem.batch * problem.heads_v * params.value_slices, stream, params);
}

} // namespace lattn::cuda
