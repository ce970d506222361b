// Derived sizes of a lattn_problem, and the checks every backend relies on.
#pragma once

#include "common/status.h"

namespace lattn {

inline int64_t ceil_div(int64_t a, int64_t b) {
    return (a + b - 1) / b;
}

inline int64_t block_count(const lattn_problem& problem) {
    return ceil_div(problem.tokens, problem.block_size);
}

// True when the state sequence holds the state before every block and not only the final one. With N = 0 both are
// the single entry "history".
inline bool has_block_states(const lattn_problem& problem) {
    return problem.state_count > 1;
}

// Whether the tensors hold sequences of different lengths one after the other, [1, H, T, X].
inline bool is_packed(const lattn_problem& problem) {
    return problem.cu_seqlens != nullptr;
}

// The batch axis of q, k, v, output and their gradients.
inline int64_t stored_batch(const lattn_problem& problem) {
    return is_packed(problem) ? 1 : problem.batch;
}

// Sizes, types and placement of a problem, independent of the device's own limits.
Status check_problem(const lattn_problem& problem);
Status check_allow_tf32(int32_t allow_tf32);

Status check_forward(const lattn_forward_params& params);
Status check_backward(const lattn_backward_params& params);
Status check_decode(const lattn_decode_params& params);
Status check_gated_norm_forward(const lattn_gated_norm_forward_params& params);
Status check_gated_norm_backward(const lattn_gated_norm_backward_params& params);
Status check_activation(const lattn_activation_params& params);

// A call's workspace against what it needs.
Status check_workspace(const void* workspace, uint64_t bytes, uint64_t needed);

} // namespace lattn
