// Decode on CUDA: fills the kernel's parameters and queues it.
#include "common/dtype.h"
#include "cuda/cuda.h"
#include "cuda/decode/decode_params.h"
#include "cuda/host/device.h"
#include "cuda/host/views.h"

namespace lattn::cuda {
namespace {

TensorView row_view(const lattn_view& view, const lattn_decode_params& params, int64_t heads) {
    return {view.data, view.stride_b, view.stride_h, 0, static_cast<int32_t>(params.heads_v / heads), 0};
}

DecodeState decode_state(const lattn_state_view& view) {
    return {view.data, view.stride_b, view.stride_h, view.stride_d, view.stride_e};
}

// Whether every group of 4 columns is contiguous and starts at a multiple of its own size.
bool vectorizes(const lattn_state_view& view, lattn_dtype dtype) {
    const int64_t element_bytes = static_cast<int64_t>(dtype_bytes(dtype));
    const int64_t word_bytes = 4 * element_bytes;
    const auto aligned = [&](int64_t stride) { return stride * element_bytes % word_bytes == 0; };
    return view.stride_e == 1 && aligned(view.stride_b) && aligned(view.stride_h) && aligned(view.stride_d) &&
           reinterpret_cast<uintptr_t>(view.data) % static_cast<uintptr_t>(word_bytes) == 0;
}

} // namespace

Status decode(const lattn_decode_params& params) {
    LATTN_RETURN_IF_ERROR(check_head_dim("head_dim_qk", params.head_dim_qk));
    LATTN_RETURN_IF_ERROR(check_head_dim("head_dim_v", params.head_dim_v));
    int kernel = 0;
    LATTN_RETURN_IF_ERROR(find_kernel(Operation::kDecode, params.dtype, params.state_dtype, 0, kernel));
    Device* device = nullptr;
    LATTN_RETURN_IF_ERROR(Device::get(params.device_index, device));

    DecodeParams decode{};
    decode.q = row_view(params.q, params, params.heads_qk);
    decode.k = row_view(params.k, params, params.heads_qk);
    decode.v = row_view(params.v, params, params.heads_v);
    decode.output = row_view(params.output, params, params.heads_v);
    decode.decay_rate = static_cast<const float*>(params.decay_rate);
    decode.state_in = decode_state(params.state_in);
    decode.state_out = decode_state(params.state_out);
    decode.slots = params.slots;
    decode.slot_count = params.slot_count;
    decode.slots_are_int64 = params.slot_dtype == LATTN_INT64;
    decode.heads = static_cast<int32_t>(params.heads_v);
    decode.row_dim = static_cast<int32_t>(params.head_dim_qk);
    decode.value_dim = static_cast<int32_t>(params.head_dim_v);
    decode.state_vectorized =
        vectorizes(params.state_in, params.state_dtype) && vectorizes(params.state_out, params.state_dtype);
    decode.scale = static_cast<float>(params.scale);
    return device->launch(kernel, params.batch * params.heads_v, static_cast<CUstream>(params.stream), decode);
}

} // namespace lattn::cuda
