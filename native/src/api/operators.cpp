// The exported operators: check, select the backend, run.
#include "common/problem.h"
#include "cpu/cpu.h"
#include "cuda/cuda.h"

namespace lattn {
namespace {

Status check_not_null(const void* pointer, const char* name) {
    return pointer != nullptr ? ok() : error(LATTN_INVALID_ARGUMENT, "%s is NULL", name);
}

lattn_device_type device_type_of(const lattn_forward_params& params) {
    return params.problem.device_type;
}
lattn_device_type device_type_of(const lattn_backward_params& params) {
    return params.problem.device_type;
}
lattn_device_type device_type_of(const lattn_decode_params& params) {
    return params.device_type;
}
lattn_device_type device_type_of(const lattn_gated_norm_forward_params& params) {
    return params.norm.device_type;
}
lattn_device_type device_type_of(const lattn_gated_norm_backward_params& params) {
    return params.norm.device_type;
}
lattn_device_type device_type_of(const lattn_activation_params& params) {
    return params.device_type;
}

template <typename Params>
Status run(const Params* params, Status (*check)(const Params&), Status (*on_cpu)(const Params&),
           Status (*on_cuda)(const Params&)) {
    LATTN_RETURN_IF_ERROR(check_not_null(params, "params"));
    LATTN_RETURN_IF_ERROR(check(*params));
    return device_type_of(*params) == LATTN_CUDA ? on_cuda(*params) : on_cpu(*params);
}

// The CPU backend allocates its own scratch and needs no workspace.
template <typename Params>
Status workspace_size(const Params* params, uint64_t* bytes, Status (*check)(const Params&),
                      Status (*on_cuda)(const Params&, uint64_t&)) {
    LATTN_RETURN_IF_ERROR(check_not_null(params, "params"));
    LATTN_RETURN_IF_ERROR(check_not_null(bytes, "bytes"));
    *bytes = 0;
    LATTN_RETURN_IF_ERROR(check(*params));
    return device_type_of(*params) == LATTN_CUDA ? on_cuda(*params, *bytes) : ok();
}

} // namespace
} // namespace lattn

extern "C" {

lattn_status lattn_forward_workspace_size(const lattn_forward_params* params, uint64_t* bytes) {
    return lattn::workspace_size(params, bytes, lattn::check_forward, lattn::cuda::forward_workspace_size).code;
}

lattn_status lattn_backward_workspace_size(const lattn_backward_params* params, uint64_t* bytes) {
    return lattn::workspace_size(params, bytes, lattn::check_backward, lattn::cuda::backward_workspace_size).code;
}

lattn_status lattn_forward(const lattn_forward_params* params) {
    return lattn::run(params, lattn::check_forward, lattn::cpu::forward, lattn::cuda::forward).code;
}

lattn_status lattn_backward(const lattn_backward_params* params) {
    return lattn::run(params, lattn::check_backward, lattn::cpu::backward, lattn::cuda::backward).code;
}

lattn_status lattn_decode(const lattn_decode_params* params) {
    return lattn::run(params, lattn::check_decode, lattn::cpu::decode, lattn::cuda::decode).code;
}

lattn_status lattn_gated_norm_backward_workspace_size(const lattn_gated_norm_backward_params* params, uint64_t* bytes) {
    return lattn::workspace_size(params, bytes, lattn::check_gated_norm_backward,
                                 lattn::cuda::gated_norm_backward_workspace_size)
        .code;
}

lattn_status lattn_gated_norm_forward(const lattn_gated_norm_forward_params* params) {
    return lattn::run(params, lattn::check_gated_norm_forward, lattn::cpu::gated_norm_forward,
                      lattn::cuda::gated_norm_forward)
        .code;
}

lattn_status lattn_gated_norm_backward(const lattn_gated_norm_backward_params* params) {
    return lattn::run(params, lattn::check_gated_norm_backward, lattn::cpu::gated_norm_backward,
                      lattn::cuda::gated_norm_backward)
        .code;
}

lattn_status lattn_activate(const lattn_activation_params* params) {
    return lattn::run(params, lattn::check_activation, lattn::cpu::activate, lattn::cuda::activate).code;
}

lattn_status lattn_fork_stream(int32_t device_index, void* stream, void** side) {
    const lattn::Status status = lattn::check_not_null(side, "side");
    return status.code != LATTN_OK ? status.code : lattn::cuda::fork_stream(device_index, stream, *side).code;
}

lattn_status lattn_join_stream(int32_t device_index, void* stream, void* side) {
    return lattn::cuda::join_stream(device_index, stream, side).code;
}

lattn_status lattn_multiprocessor_count(int32_t device_index, int32_t* count) {
    const lattn::Status status = lattn::check_not_null(count, "count");
    return status.code != LATTN_OK ? status.code : lattn::cuda::multiprocessor_count(device_index, *count).code;
}

} // extern "C"
