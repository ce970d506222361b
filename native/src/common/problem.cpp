#include "common/problem.h"

#include <cmath>

#include "common/dtype.h"

namespace lattn {
namespace {

Status check_struct_size(const char* name, uint64_t actual, uint64_t expected) {
    if (actual == expected) return ok();
    return error(LATTN_INVALID_ARGUMENT,
                 "%s.struct_size = %llu, this library expects %llu: the caller was built against another header", name,
                 static_cast<unsigned long long>(actual), static_cast<unsigned long long>(expected));
}

Status check_at_least(const char* name, int64_t value, int64_t minimum) {
    if (value >= minimum) return ok();
    return error(LATTN_INVALID_ARGUMENT, "%s = %lld must be at least %lld", name, static_cast<long long>(value),
                 static_cast<long long>(minimum));
}

Status check_heads(int64_t heads_qk, int64_t heads_v) {
    LATTN_RETURN_IF_ERROR(check_at_least("heads_qk", heads_qk, 1));
    LATTN_RETURN_IF_ERROR(check_at_least("heads_v", heads_v, 1));
    if (heads_v % heads_qk == 0) return ok();
    return error(LATTN_INVALID_ARGUMENT, "heads_v = %lld must be a multiple of heads_qk = %lld",
                 static_cast<long long>(heads_v), static_cast<long long>(heads_qk));
}

Status check_dtype(const char* name, lattn_dtype dtype) {
    if (is_floating(dtype)) return ok();
    return error(LATTN_INVALID_ARGUMENT, "%s = %d (%s) must be float16, bfloat16, float32 or float64", name, dtype,
                 dtype_name(dtype));
}

Status check_device(lattn_device_type device_type, int32_t device_index) {
    if (device_type != LATTN_CPU && device_type != LATTN_CUDA)
        return error(LATTN_INVALID_ARGUMENT, "device_type = %d must be 0 (CPU) or 1 (CUDA)", device_type);
    if (device_type == LATTN_CUDA && device_index < 0)
        return error(LATTN_INVALID_ARGUMENT, "device_index = %d must not be negative", device_index);
    return ok();
}

Status check_scale(double scale) {
    if (std::isfinite(scale)) return ok();
    return error(LATTN_INVALID_ARGUMENT, "scale = %g must be finite", scale);
}

Status check_pointer(const char* name, const void* data, int64_t elements) {
    if (data != nullptr || elements == 0) return ok();
    return error(LATTN_INVALID_ARGUMENT, "%s.data is NULL, but the tensor has %lld elements", name,
                 static_cast<long long>(elements));
}

// What a packed batch has no place for.
Status check_absent(const char* name, const void* data) {
    if (data == nullptr) return ok();
    return error(LATTN_INVALID_ARGUMENT,
                 "%s.data must be NULL with cu_seqlens: the states of a packed batch are in "
                 "its pool",
                 name);
}

Status check_index_dtype(const char* name, const void* data, lattn_dtype dtype) {
    if (data == nullptr || dtype == LATTN_INT32 || dtype == LATTN_INT64) return ok();
    return error(LATTN_INVALID_ARGUMENT, "%s = %d (%s) must be int32 or int64", name, dtype, dtype_name(dtype));
}

Status check_state_dtype(const char* name, lattn_dtype state_dtype, lattn_dtype dtype) {
    LATTN_RETURN_IF_ERROR(check_dtype(name, state_dtype));
    if ((dtype == LATTN_FLOAT64) == (state_dtype == LATTN_FLOAT64)) return ok();
    return error(LATTN_INVALID_ARGUMENT, "%s = %s does not go with dtype = %s: float64 only with float64", name,
                 dtype_name(state_dtype), dtype_name(dtype));
}

// The inputs that forward and backward share.
template <typename Params>
Status check_inputs(const Params& params) {
    const lattn_problem& p = params.problem;
    LATTN_RETURN_IF_ERROR(check_problem(p));
    const int64_t rows = stored_batch(p) * p.tokens;
    LATTN_RETURN_IF_ERROR(check_pointer("q", params.q.data, rows));
    LATTN_RETURN_IF_ERROR(check_pointer("k", params.k.data, rows));
    LATTN_RETURN_IF_ERROR(check_pointer("v", params.v.data, rows));
    LATTN_RETURN_IF_ERROR(check_pointer("decay_rate", params.decay_rate, rows));
    return is_packed(p) ? check_absent("history", params.history.data) : ok();
}

Status check_pool(const lattn_pool& pool, const lattn_problem& problem) {
    if (pool.states.data == nullptr) {
        if (pool.slots == nullptr && pool.has_initial == nullptr && pool.slot_count == 0) return ok();
        return error(LATTN_INVALID_ARGUMENT, "pool.states.data is NULL, but the pool's other fields are set");
    }
    if (!is_packed(problem))
        return error(LATTN_INVALID_ARGUMENT,
                     "pool.states.data is set, but cu_seqlens is NULL: a pool holds the states "
                     "of a packed batch");
    LATTN_RETURN_IF_ERROR(check_state_dtype("pool.state_dtype", pool.state_dtype, problem.dtype));
    LATTN_RETURN_IF_ERROR(check_at_least("pool.slot_count", pool.slot_count, 0));
    LATTN_RETURN_IF_ERROR(check_index_dtype("pool.slot_dtype", pool.slots, pool.slot_dtype));
    if (pool.slots != nullptr || pool.slot_count >= problem.batch) return ok();
    return error(LATTN_INVALID_ARGUMENT, "pool.slot_count = %lld is less than batch = %lld and pool.slots is NULL",
                 static_cast<long long>(pool.slot_count), static_cast<long long>(problem.batch));
}

Status check_activation_function(lattn_activation activation) {
    if (activation >= LATTN_IDENTITY && activation <= LATTN_SIGMOID) return ok();
    return error(LATTN_INVALID_ARGUMENT, "activation = %d must be 0 (identity), 1 (SiLU) or 2 (sigmoid)", activation);
}

// The inputs that forward and backward of a gated norm share.
template <typename Params>
Status check_gated_norm(const Params& params) {
    const lattn_gated_norm& norm = params.norm;
    LATTN_RETURN_IF_ERROR(check_at_least("batch", norm.batch, 0));
    LATTN_RETURN_IF_ERROR(check_at_least("heads", norm.heads, 1));
    LATTN_RETURN_IF_ERROR(check_at_least("tokens", norm.tokens, 0));
    LATTN_RETURN_IF_ERROR(check_at_least("head_dim", norm.head_dim, 1));
    LATTN_RETURN_IF_ERROR(check_at_least("groups", norm.groups, 1));
    const int64_t channels = norm.heads * norm.head_dim;
    if (channels % norm.groups != 0)
        return error(LATTN_INVALID_ARGUMENT, "groups = %lld must divide heads * head_dim = %lld",
                     static_cast<long long>(norm.groups), static_cast<long long>(channels));
    if (!std::isfinite(norm.eps) || norm.eps < 0)
        return error(LATTN_INVALID_ARGUMENT, "eps = %g must be finite and not negative", norm.eps);
    LATTN_RETURN_IF_ERROR(check_activation_function(norm.activation));
    LATTN_RETURN_IF_ERROR(check_dtype("dtype", norm.dtype));
    LATTN_RETURN_IF_ERROR(check_device(norm.device_type, norm.device_index));
    const int64_t rows = norm.batch * norm.tokens;
    LATTN_RETURN_IF_ERROR(check_pointer("x", params.x.data, rows));
    LATTN_RETURN_IF_ERROR(check_pointer("gate", params.gate.data, rows));
    return check_pointer("weight", params.weight, rows);
}

} // namespace

Status check_problem(const lattn_problem& problem) {
    LATTN_RETURN_IF_ERROR(check_at_least("batch", problem.batch, 0));
    LATTN_RETURN_IF_ERROR(check_heads(problem.heads_qk, problem.heads_v));
    LATTN_RETURN_IF_ERROR(check_at_least("tokens", problem.tokens, 0));
    LATTN_RETURN_IF_ERROR(check_at_least("head_dim_qk", problem.head_dim_qk, 1));
    LATTN_RETURN_IF_ERROR(check_at_least("head_dim_v", problem.head_dim_v, 1));
    if (problem.block_size <= 0 || problem.block_size % 64 != 0)
        return error(LATTN_INVALID_ARGUMENT, "block_size = %lld must be a positive multiple of 64",
                     static_cast<long long>(problem.block_size));
    if (is_packed(problem)) {
        LATTN_RETURN_IF_ERROR(check_index_dtype("cu_seqlens_dtype", problem.cu_seqlens, problem.cu_seqlens_dtype));
        if (problem.state_count != 1)
            return error(LATTN_INVALID_ARGUMENT, "state_count = %lld must be 1 with cu_seqlens",
                         static_cast<long long>(problem.state_count));
    }
    const int64_t all_states = block_count(problem) + 1;
    if (problem.state_count != 1 && problem.state_count != all_states)
        return error(LATTN_INVALID_ARGUMENT,
                     "state_count = %lld must be 1 (final state) or %lld (ceil(tokens / block_size) + 1)",
                     static_cast<long long>(problem.state_count), static_cast<long long>(all_states));
    LATTN_RETURN_IF_ERROR(check_scale(problem.scale));
    LATTN_RETURN_IF_ERROR(check_dtype("dtype", problem.dtype));
    if (problem.cuda_path < LATTN_CUDA_PATH_AUTOMATIC || problem.cuda_path > LATTN_CUDA_PATH_HOPPER)
        return error(LATTN_INVALID_ARGUMENT, "cuda_path = %d must be 0 (automatic), 1 (general) or 2 (Hopper)",
                     problem.cuda_path);
    LATTN_RETURN_IF_ERROR(check_allow_tf32(problem.allow_tf32));
    return check_device(problem.device_type, problem.device_index);
}

Status check_allow_tf32(int32_t allow_tf32) {
    if (allow_tf32 == 0 || allow_tf32 == 1) return ok();
    return error(LATTN_INVALID_ARGUMENT, "allow_tf32 = %d must be 0 or 1", allow_tf32);
}

Status check_forward(const lattn_forward_params& params) {
    LATTN_RETURN_IF_ERROR(check_struct_size("lattn_forward_params", params.struct_size, sizeof(params)));
    LATTN_RETURN_IF_ERROR(check_inputs(params));
    if (is_packed(params.problem)) LATTN_RETURN_IF_ERROR(check_absent("states", params.states.data));
    LATTN_RETURN_IF_ERROR(check_pool(params.pool, params.problem));
    return check_pointer("output", params.output.data, stored_batch(params.problem) * params.problem.tokens);
}

Status check_backward(const lattn_backward_params& params) {
    LATTN_RETURN_IF_ERROR(check_struct_size("lattn_backward_params", params.struct_size, sizeof(params)));
    LATTN_RETURN_IF_ERROR(check_inputs(params));
    if (!is_packed(params.problem)) return ok();
    LATTN_RETURN_IF_ERROR(check_absent("grad_states", params.grad_states.data));
    return check_absent("grad_history", params.grad_history.data);
}

Status check_decode(const lattn_decode_params& params) {
    LATTN_RETURN_IF_ERROR(check_struct_size("lattn_decode_params", params.struct_size, sizeof(params)));
    LATTN_RETURN_IF_ERROR(check_at_least("batch", params.batch, 0));
    LATTN_RETURN_IF_ERROR(check_heads(params.heads_qk, params.heads_v));
    LATTN_RETURN_IF_ERROR(check_at_least("head_dim_qk", params.head_dim_qk, 1));
    LATTN_RETURN_IF_ERROR(check_at_least("head_dim_v", params.head_dim_v, 1));
    LATTN_RETURN_IF_ERROR(check_at_least("slot_count", params.slot_count, 0));
    LATTN_RETURN_IF_ERROR(check_scale(params.scale));
    LATTN_RETURN_IF_ERROR(check_dtype("dtype", params.dtype));
    LATTN_RETURN_IF_ERROR(check_state_dtype("state_dtype", params.state_dtype, params.dtype));
    LATTN_RETURN_IF_ERROR(check_device(params.device_type, params.device_index));
    if (params.tokens < 1 || params.tokens > LATTN_MAX_DECODE_TOKENS)
        return error(LATTN_INVALID_ARGUMENT, "tokens = %d must be from 1 to %d", params.tokens,
                     LATTN_MAX_DECODE_TOKENS);
    if (params.reserved != 0) return error(LATTN_INVALID_ARGUMENT, "reserved = %d must be 0", params.reserved);
    LATTN_RETURN_IF_ERROR(check_index_dtype("slot_dtype", params.slots, params.slot_dtype));
    LATTN_RETURN_IF_ERROR(check_index_dtype("accepted_dtype", params.accepted, params.accepted_dtype));
    if (params.slots == nullptr && params.slot_count < params.batch)
        return error(LATTN_INVALID_ARGUMENT, "slot_count = %lld is less than batch = %lld and slots is NULL",
                     static_cast<long long>(params.slot_count), static_cast<long long>(params.batch));
    if (params.output.data != nullptr) LATTN_RETURN_IF_ERROR(check_pointer("q", params.q.data, params.batch));
    LATTN_RETURN_IF_ERROR(check_pointer("k", params.k.data, params.batch));
    LATTN_RETURN_IF_ERROR(check_pointer("v", params.v.data, params.batch));
    LATTN_RETURN_IF_ERROR(check_pointer("decay_rate", params.decay_rate, params.batch));
    return check_pointer("state_in", params.state_in.data, params.batch > 0 ? params.slot_count : 0);
}

Status check_gated_norm_forward(const lattn_gated_norm_forward_params& params) {
    LATTN_RETURN_IF_ERROR(check_struct_size("lattn_gated_norm_forward_params", params.struct_size, sizeof(params)));
    LATTN_RETURN_IF_ERROR(check_gated_norm(params));
    return check_pointer("output", params.output.data, params.norm.batch * params.norm.tokens);
}

Status check_gated_norm_backward(const lattn_gated_norm_backward_params& params) {
    LATTN_RETURN_IF_ERROR(check_struct_size("lattn_gated_norm_backward_params", params.struct_size, sizeof(params)));
    LATTN_RETURN_IF_ERROR(check_gated_norm(params));
    return check_pointer("grad_output", params.grad_output.data, params.norm.batch * params.norm.tokens);
}

Status check_activation(const lattn_activation_params& params) {
    LATTN_RETURN_IF_ERROR(check_struct_size("lattn_activation_params", params.struct_size, sizeof(params)));
    LATTN_RETURN_IF_ERROR(check_at_least("count", params.count, 0));
    LATTN_RETURN_IF_ERROR(check_activation_function(params.activation));
    LATTN_RETURN_IF_ERROR(check_dtype("dtype", params.dtype));
    LATTN_RETURN_IF_ERROR(check_device(params.device_type, params.device_index));
    LATTN_RETURN_IF_ERROR(check_pointer("input", params.input, params.count));
    return check_pointer("output", params.output, params.count);
}

Status check_workspace(const void* workspace, uint64_t bytes, uint64_t needed) {
    if (bytes >= needed && (workspace != nullptr || needed == 0)) return ok();
    return error(LATTN_INVALID_ARGUMENT, "workspace_bytes = %llu%s, but this call needs %llu",
                 static_cast<unsigned long long>(bytes), workspace == nullptr ? " and workspace is NULL" : "",
                 static_cast<unsigned long long>(needed));
}

} // namespace lattn
