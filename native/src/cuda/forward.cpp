// Forward on CUDA: one scan (a, b, c) = (q, k, v), by the path that the caller asks for.
#include "cuda/cuda.h"
#include "cuda/host/views.h"
#include "cuda/scan/scan_launch.h"
#include "cuda/segmented_scan/segmented_scan_launch.h"

#include "common/dtype.h"

namespace lattn::cuda {
namespace {

// The segmented scan serves those who ask for it.
bool wants_segmented_scan(const lattn_forward_params& params) {
    return params.problem.cuda_path == LATTN_CUDA_PATH_HOPPER;
}

Status forward_by_scan(Device& device, const lattn_forward_params& params) {
    const lattn_problem& problem = params.problem;
    ScanParams scan = scan_params(problem, params.decay_rate);
    scan.a = input_view(params.q, problem, problem.heads_qk);
    scan.b = input_view(params.k, problem, problem.heads_qk);
    scan.c = input_view(params.v, problem, problem.heads_v);
    scan.out = output_view(params.output, problem, problem.heads_v, static_cast<int64_t>(dtype_bytes(problem.dtype)));
    scan.row_dim = static_cast<int32_t>(problem.head_dim_qk);
    scan.value_dim = static_cast<int32_t>(problem.head_dim_v);
    scan.initial = state_view(params.history);
    if (params.states.data != nullptr) {
        scan.final = states_view(params.states, problem.state_count - 1);
        if (has_block_states(problem)) scan.block_states = states_view(params.states, 0);
    }
    return launch_scan(device, problem, scan, static_cast<CUstream>(params.stream));
}

} // namespace

Status forward_workspace_size(const lattn_forward_params& params, uint64_t& bytes) {
    bytes = 0;
    if (!wants_segmented_scan(params)) return ok();
    Device* device = nullptr;
    LATTN_RETURN_IF_ERROR(Device::get(params.problem.device_index, device));
    int kernel = 0;
    LATTN_RETURN_IF_ERROR(check_segmented_scan(*device, params, kernel));
    bytes = segmented_scan_workspace_bytes(*device, params, kernel);
    return ok();
}

Status forward(const lattn_forward_params& params) {
    LATTN_RETURN_IF_ERROR(check_head_dim("head_dim_qk", params.problem.head_dim_qk));
    LATTN_RETURN_IF_ERROR(check_head_dim("head_dim_v", params.problem.head_dim_v));
    Device* device = nullptr;
    LATTN_RETURN_IF_ERROR(Device::get(params.problem.device_index, device));
    if (!wants_segmented_scan(params)) return forward_by_scan(*device, params);
    int kernel = 0;
    LATTN_RETURN_IF_ERROR(check_segmented_scan(*device, params, kernel));
    return launch_segmented_scan(*device, params, kernel);
}

} // namespace lattn::cuda
