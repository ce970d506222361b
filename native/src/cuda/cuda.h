// The CUDA backend as native/src/api sees it. A build without CUDA kernels answers LATTN_NOT_SUPPORTED to all of it.
// The checks of common/problem.h have passed before these are called.
#pragma once

#include <cstddef>

#include "common/status.h"

namespace lattn::cuda {

Status forward_workspace_size(const lattn_forward_params& params, uint64_t& bytes);
Status backward_workspace_size(const lattn_backward_params& params, uint64_t& bytes);
Status forward(const lattn_forward_params& params);
Status backward(const lattn_backward_params& params);
Status decode(const lattn_decode_params& params);
Status gated_norm_backward_workspace_size(const lattn_gated_norm_backward_params& params, uint64_t& bytes);
Status gated_norm_forward(const lattn_gated_norm_forward_params& params);
Status gated_norm_backward(const lattn_gated_norm_backward_params& params);
Status activate(const lattn_activation_params& params);

Status fork_stream(int device_index, void* stream, void*& side);
Status join_stream(int device_index, void* stream, void* side);
Status multiprocessor_count(int device_index, int& count);

// Name of the kernel that an operation would run; `name` is a static string.
Status describe(const lattn_support_query& query, const char*& name);

Status synchronize(int device_index);

int kernel_count();
void kernel_info(int index, lattn_kernel_info& info);
Status module_image(const char* module, const void*& image, uint64_t& bytes);

} // namespace lattn::cuda
