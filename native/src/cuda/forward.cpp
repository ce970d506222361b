// Forward on CUDA: one scan (a, b, c) = (q, k, v), by the segmented scan where it takes the call.
#include "cuda/cuda.h"
#include "cuda/host/views.h"
#include "cuda/scan/scan_launch.h"
#include "cuda/segmented_scan/segmented_scan_launch.h"

#include "common/dtype.h"

namespace lattn::cuda {
namespace {

constexpr int kNone = -1;

// The segmented scan that serves a call, or kNone: then the general scan does. An error where the caller asks for the
// segmented scan and there is none.
Status choose_segmented_scan(const Device& device, const lattn_forward_params& params, int& kernel) {
    kernel = kNone;
    if (params.problem.cuda_path == LATTN_CUDA_PATH_GENERAL) return ok();
    if (params.problem.cuda_path == LATTN_CUDA_PATH_HOPPER) return check_segmented_scan(device, params, kernel);
    const LastErrorKept kept;
    if (check_segmented_scan(device, params, kernel).code != LATTN_OK) kernel = kNone;
    return ok();
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
    Device* device = nullptr;
    LATTN_RETURN_IF_ERROR(Device::get(params.problem.device_index, device));
    int kernel = kNone;
    LATTN_RETURN_IF_ERROR(choose_segmented_scan(*device, params, kernel));
    if (kernel != kNone) bytes = segmented_scan_workspace_bytes(*device, params, kernel);
    return ok();
}

Status forward(const lattn_forward_params& params) {
    LATTN_RETURN_IF_ERROR(check_head_dim("head_dim_qk", params.problem.head_dim_qk));
    LATTN_RETURN_IF_ERROR(check_head_dim("head_dim_v", params.problem.head_dim_v));
    Device* device = nullptr;
    LATTN_RETURN_IF_ERROR(Device::get(params.problem.device_index, device));
    int kernel = kNone;
    LATTN_RETURN_IF_ERROR(choose_segmented_scan(*device, params, kernel));
    return kernel != kNone ? launch_segmented_scan(*device, params, kernel) : forward_by_scan(*device, params);
}

} // namespace lattn::cuda
