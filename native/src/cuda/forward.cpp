// Forward on CUDA: one scan (a, b, c) = (q, k, v).
#include "cuda/cuda.h"
#include "cuda/host/views.h"
#include "cuda/scan_call.h"

namespace lattn::cuda {
namespace {

ScanCall scan_of(const lattn_forward_params& params) {
    const lattn_problem& problem = params.problem;
    ScanCall call{problem,
                  {"q", params.q, problem.heads_qk, problem.head_dim_qk},
                  {"k", params.k, problem.heads_qk, problem.head_dim_qk},
                  {"v", params.v, problem.heads_v, problem.head_dim_v},
                  {"output", params.output, problem.heads_v, problem.head_dim_v},
                  params.decay_rate,
                  params.workspace,
                  params.workspace_bytes,
                  static_cast<CUstream>(params.stream)};
    if (params.pool.states.data != nullptr) call.pool = &params.pool;
    call.initial = state_view(params.history);
    if (params.states.data != nullptr) {
        call.final = states_view(params.states, problem.state_count - 1);
        if (has_block_states(problem)) call.block_states = states_view(params.states, 0);
    }
    return call;
}

} // namespace

Status forward_workspace_size(const lattn_forward_params& params, uint64_t& bytes) {
    Device* device = nullptr;
    LATTN_RETURN_IF_ERROR(Device::get(params.problem.device_index, device));
    return scan_workspace_bytes(*device, scan_of(params), bytes);
}

Status forward(const lattn_forward_params& params) {
    LATTN_RETURN_IF_ERROR(check_head_dim("head_dim_qk", params.problem.head_dim_qk));
    LATTN_RETURN_IF_ERROR(check_head_dim("head_dim_v", params.problem.head_dim_v));
    Device* device = nullptr;
    LATTN_RETURN_IF_ERROR(Device::get(params.problem.device_index, device));
    return run_scans(*device, {scan_of(params)});
}

} // namespace lattn::cuda
