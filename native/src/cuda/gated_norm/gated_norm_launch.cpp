// The gated norm on CUDA: fills the kernels' parameters and queues them.
#include <algorithm>
#include <climits>
#include <initializer_list>

#include "common/dtype.h"
#include "common/problem.h"
#include "cuda/cuda.h"
#include "cuda/gated_norm/gated_norm_params.h"
#include "cuda/host/device.h"
#include "cuda/host/views.h"

namespace lattn::cuda {
namespace {

int64_t rows_of(const lattn_gated_norm& norm) {
    return norm.batch * norm.tokens;
}

int64_t channels_of(const lattn_gated_norm& norm) {
    return norm.heads * norm.head_dim;
}

int64_t piece_width(const lattn_gated_norm& norm) {
    return kGatedNormBytes / static_cast<int64_t>(dtype_bytes(norm.dtype));
}

GatedNormTensor tensor_of(const lattn_view& view) {
    return {view.data, view.stride_b, view.stride_h, view.stride_n};
}

// Offsets are 64-bit numbers, channels are not.
Status check_channels(const lattn_gated_norm& norm) {
    if (channels_of(norm) <= INT_MAX - kGatedNormBytes) return ok();
    return error(LATTN_NOT_SUPPORTED, "heads * head_dim = %lld is not supported on CUDA: it must be at most %d",
                 static_cast<long long>(channels_of(norm)), INT_MAX - kGatedNormBytes);
}

GatedNormShape shape_of(const lattn_gated_norm& norm, int cta_threads) {
    const int64_t group_channels = channels_of(norm) / norm.groups;
    const int64_t pieces = ceil_div(group_channels, piece_width(norm));
    GatedNormShape shape{};
    shape.rows = rows_of(norm);
    shape.tokens = norm.tokens;
    shape.head_dim = static_cast<int32_t>(norm.head_dim);
    shape.groups = static_cast<int32_t>(norm.groups);
    shape.group_channels = static_cast<int32_t>(group_channels);
    shape.pieces = static_cast<int32_t>(pieces);
    shape.team_log2 = gated_norm_team_log2(pieces, cta_threads);
    const int64_t step = piece_width(norm) << shape.team_log2;
    shape.step_heads = static_cast<int32_t>(step / norm.head_dim);
    shape.step_columns = static_cast<int32_t>(step % norm.head_dim);
    shape.activation = norm.activation;
    shape.eps = static_cast<float>(norm.eps);
    shape.inverse_channels = 1.0f / static_cast<float>(group_channels);
    return shape;
}

// Whether every piece of a group is 16 aligned bytes of one head, in all tensors that there are.
bool has_whole_pieces(const lattn_gated_norm& norm, const void* weight,
                      std::initializer_list<const lattn_view*> views) {
    const int64_t width = piece_width(norm);
    const bool sizes_fit = norm.head_dim % width == 0 && channels_of(norm) / norm.groups % width == 0;
    const bool weight_fits = reinterpret_cast<uintptr_t>(weight) % kGatedNormBytes == 0;
    return sizes_fit && weight_fits && std::all_of(views.begin(), views.end(), [&](const lattn_view* view) {
               return view->data == nullptr ||
                      rows_aligned(*view, norm.batch, norm.heads, norm.tokens,
                                   static_cast<int64_t>(dtype_bytes(norm.dtype)), kGatedNormBytes);
           });
}

int64_t blocks_for(int64_t teams, const GatedNormShape& shape, int cta_threads) {
    return ceil_div(teams, int64_t{cta_threads} >> shape.team_log2);
}

// Without a sum over rows every row is a slice.
int64_t slice_rows(const lattn_gated_norm_backward_params& params) {
    return params.grad_weight != nullptr ? ceil_div(rows_of(params.norm), kGatedNormSlices) : 1;
}

int64_t slices_of(const lattn_gated_norm_backward_params& params) {
    return rows_of(params.norm) == 0 ? 0 : ceil_div(rows_of(params.norm), slice_rows(params));
}

uint64_t partial_bytes(const lattn_gated_norm_backward_params& params) {
    if (params.grad_weight == nullptr) return 0;
    return static_cast<uint64_t>(slices_of(params) * channels_of(params.norm)) * sizeof(float);
}

Status sum_slices(Device& device, const lattn_gated_norm_backward_params& params) {
    GatedNormSumParams sum{};
    sum.partial = static_cast<const float*>(params.workspace);
    sum.grad_weight = params.grad_weight;
    sum.slices = slices_of(params);
    sum.channels = channels_of(params.norm);
    int kernel = 0;
    LATTN_RETURN_IF_ERROR(find_kernel(Operation::kGatedNormSum, params.norm.dtype, 0, 0, kernel));
    return device.launch(kernel, ceil_div(sum.channels, int64_t{kGatedNormSumColumns}),
                         static_cast<CUstream>(params.stream), sum, device.earliest_start());
}

} // namespace

Status gated_norm_forward(const lattn_gated_norm_forward_params& params) {
    const lattn_gated_norm& norm = params.norm;
    LATTN_RETURN_IF_ERROR(check_channels(norm));
    const bool whole = has_whole_pieces(norm, params.weight, {&params.x, &params.gate, &params.output});
    int kernel = 0;
    LATTN_RETURN_IF_ERROR(
        find_kernel(whole ? Operation::kGatedNorm : Operation::kGatedNormAny, norm.dtype, 0, 0, kernel));
    Device* device = nullptr;
    LATTN_RETURN_IF_ERROR(Device::get(norm.device_index, device));

    GatedNormParams forward{};
    forward.shape = shape_of(norm, kGatedNormThreads);
    forward.x = tensor_of(params.x);
    forward.gate = tensor_of(params.gate);
    forward.weight = params.weight;
    forward.output = tensor_of(params.output);
    return device->launch(kernel, blocks_for(rows_of(norm) * norm.groups, forward.shape, kGatedNormThreads),
                          static_cast<CUstream>(params.stream), forward, device->earliest_start());
}

Status gated_norm_backward_workspace_size(const lattn_gated_norm_backward_params& params, uint64_t& bytes) {
    LATTN_RETURN_IF_ERROR(check_channels(params.norm));
    bytes = partial_bytes(params);
    return ok();
}

Status gated_norm_backward(const lattn_gated_norm_backward_params& params) {
    const lattn_gated_norm& norm = params.norm;
    LATTN_RETURN_IF_ERROR(check_channels(norm));
    const bool whole = has_whole_pieces(
        norm, params.weight, {&params.x, &params.gate, &params.grad_output, &params.grad_x, &params.grad_gate});
    int kernel = 0;
    LATTN_RETURN_IF_ERROR(find_kernel(whole ? Operation::kGatedNormBackward : Operation::kGatedNormBackwardAny,
                                      norm.dtype, 0, 0, kernel));
    LATTN_RETURN_IF_ERROR(check_workspace(params.workspace, params.workspace_bytes, partial_bytes(params)));
    Device* device = nullptr;
    LATTN_RETURN_IF_ERROR(Device::get(norm.device_index, device));

    GatedNormBackwardParams backward{};
    backward.shape = shape_of(norm, kGatedNormBackwardThreads);
    backward.x = tensor_of(params.x);
    backward.gate = tensor_of(params.gate);
    backward.weight = params.weight;
    backward.grad_output = tensor_of(params.grad_output);
    backward.grad_x = tensor_of(params.grad_x);
    backward.grad_gate = tensor_of(params.grad_gate);
    backward.partial = params.grad_weight != nullptr ? static_cast<float*>(params.workspace) : nullptr;
    backward.slices = slices_of(params);
    backward.slice_rows = static_cast<int32_t>(slice_rows(params));
    LATTN_RETURN_IF_ERROR(
        device->launch(kernel, blocks_for(backward.slices * norm.groups, backward.shape, kGatedNormBackwardThreads),
                       static_cast<CUstream>(params.stream), backward, device->earliest_start()));
    return params.grad_weight != nullptr ? sum_slices(*device, params) : ok();
}

} // namespace lattn::cuda
