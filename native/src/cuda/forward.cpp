// Forward on CUDA: one scan (a, b, c) = (q, k, v).
#include "cuda/cuda.h"
#include "cuda/host/views.h"
#include "cuda/scan/scan_launch.h"

#include "common/dtype.h"

namespace lattn::cuda {

Status forward_workspace_size(const lattn_forward_params&, uint64_t& bytes) {
    bytes = 0;
    return ok();
}

Status forward(const lattn_forward_params& params) {
    const lattn_problem& problem = params.problem;
    LATTN_RETURN_IF_ERROR(check_head_dim("head_dim_qk", problem.head_dim_qk));
    LATTN_RETURN_IF_ERROR(check_head_dim("head_dim_v", problem.head_dim_v));
    Device* device = nullptr;
    LATTN_RETURN_IF_ERROR(Device::get(problem.device_index, device));

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
    return launch_scan(*device, problem, scan, static_cast<CUstream>(params.stream));
}

} // namespace lattn::cuda
