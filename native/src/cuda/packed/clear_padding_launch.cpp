#include "cuda/packed/clear_padding_launch.h"

#include <algorithm>

#include "common/dtype.h"
#include "common/problem.h"
#include "cuda/host/views.h"

namespace lattn::cuda {

ClearPaddingParams clear_padding_params(const ScanCall& call) {
    const lattn_problem& problem = call.problem;
    const lattn_view& out = call.out.view;
    if (out.data == nullptr) return {};
    const auto element_bytes = static_cast<int64_t>(call.out_is_float ? sizeof(float) : dtype_bytes(problem.dtype));
    ClearPaddingParams params{};
    params.packed = packed_batch(problem, call.pool);
    params.data = static_cast<unsigned char*>(out.data);
    params.stride_h = out.stride_h * element_bytes;
    params.stride_n = out.stride_n * element_bytes;
    params.tokens = problem.tokens;
    params.heads = static_cast<int32_t>(call.out.heads);
    params.row_bytes = static_cast<int32_t>(call.out.columns * element_bytes);
    params.vector_aligned = rows_aligned(out, 1, call.out.heads, problem.tokens, element_bytes, kLoadBytes);
    return params;
}

Status clear_padding(Device& device, const ScanCall& call) {
    const ClearPaddingParams params = clear_padding_params(call);
    if (params.data == nullptr) return ok();
    int kernel = 0;
    LATTN_RETURN_IF_ERROR(find_kernel(Operation::kClearPadding, 0, 0, 0, kernel));
    constexpr int64_t kMaxBlocks = 65536; // the kernel strides over the rest
    const int64_t blocks = std::min(ceil_div(params.tokens, int64_t{kClearPaddingTokens}), kMaxBlocks);
    return device.launch(kernel, blocks, call.stream, params);
}

} // namespace lattn::cuda
