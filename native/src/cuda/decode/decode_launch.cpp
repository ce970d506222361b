// Decode on CUDA: fills the kernel's parameters and queues it.
#include <algorithm>

#include "common/dtype.h"
#include "cuda/cuda.h"
#include "cuda/decode/decode_params.h"
#include "cuda/host/device.h"
#include "cuda/host/views.h"

namespace lattn::cuda {
namespace {

static_assert(kMaxDecodeTokens == LATTN_MAX_DECODE_TOKENS);

DecodeTensor decode_tensor(const lattn_view& view, const lattn_decode_params& params, int64_t heads) {
    const bool aligned = rows_aligned(view, params.batch, heads, params.tokens,
                                      static_cast<int64_t>(dtype_bytes(params.dtype)), kLoadBytes);
    return {view.data, view.stride_b, view.stride_h, view.stride_n, aligned};
}

DecodeState decode_state(const lattn_state_view& view) {
    return {view.data, view.stride_b, view.stride_h, view.stride_d, view.stride_e};
}

// Whether what a thread owns of a row is a word, or there is no state.
bool vectorizes(const lattn_state_view& view, const lattn_decode_params& params) {
    const int64_t element_bytes = static_cast<int64_t>(dtype_bytes(params.state_dtype));
    const auto aligned = [&](int64_t size, int64_t stride) {
        return size <= 1 || stride * element_bytes % kDecodeThreadBytes == 0;
    };
    return view.data == nullptr ||
           (view.stride_e == 1 && aligned(params.slot_count, view.stride_b) && aligned(params.heads_v, view.stride_h) &&
            aligned(params.head_dim_qk, view.stride_d) &&
            reinterpret_cast<uintptr_t>(view.data) % kDecodeThreadBytes == 0);
}

} // namespace

Status decode(const lattn_decode_params& params) {
    LATTN_RETURN_IF_ERROR(check_head_dim("head_dim_qk", params.head_dim_qk));
    LATTN_RETURN_IF_ERROR(check_head_dim("head_dim_v", params.head_dim_v));
    // The kernel of one token has no other case than a decode step.
    const bool step = params.tokens == 1 && params.accepted == nullptr && params.output.data != nullptr &&
                      params.state_out.data != nullptr;
    int kernel = 0;
    LATTN_RETURN_IF_ERROR(find_kernel(step ? Operation::kDecode : Operation::kDecodeDraft, params.dtype,
                                      params.state_dtype, params.head_dim_qk, kernel));
    Device* device = nullptr;
    LATTN_RETURN_IF_ERROR(Device::get(params.device_index, device));
    if (params.output.data == nullptr && params.state_out.data == nullptr) return ok();

    DecodeParams decode{};
    decode.q = decode_tensor(params.q, params, params.heads_qk);
    decode.k = decode_tensor(params.k, params, params.heads_qk);
    decode.v = decode_tensor(params.v, params, params.heads_v);
    decode.output = decode_tensor(params.output, params, params.heads_v);
    decode.decay_rate = static_cast<const float*>(params.decay_rate);
    decode.state_in = decode_state(params.state_in);
    decode.state_out = decode_state(params.state_out);
    decode.slots = params.slots;
    decode.accepted = params.accepted;
    decode.slot_count = params.slot_count;
    decode.slots_are_int64 = params.slot_dtype == LATTN_INT64;
    decode.accepted_are_int64 = params.accepted_dtype == LATTN_INT64;
    decode.heads = static_cast<int32_t>(params.heads_v);
    decode.group = static_cast<int32_t>(params.heads_v / params.heads_qk);
    decode.tokens = params.tokens;
    decode.row_dim = static_cast<int32_t>(params.head_dim_qk);
    decode.value_dim = static_cast<int32_t>(params.head_dim_v);
    const int state_bytes = static_cast<int>(dtype_bytes(params.state_dtype));
    const int64_t slice = decode_slice(state_bytes);
    decode.slices = static_cast<int32_t>((params.head_dim_v + slice - 1) / slice);
    decode.state_vectorized = vectorizes(params.state_in, params) && vectorizes(params.state_out, params);
    decode.scale = static_cast<float>(params.scale);

    const int64_t blocks = params.batch * params.heads_v * decode.slices;
    const Start start = device->earliest_start();
    if (start == Start::kDuringPrior) {
        const int wave = device->multiprocessors() * (decode_resident_threads(state_bytes) / kernel_at(kernel).threads);
        decode.early_blocks = wave;
        // The first wave's loads find their states in L2, and DRAM would be idle. With 16-bit states every wave has
        // fewer loads under way than it could take.
        const int64_t followed = std::max<int64_t>(blocks - wave, 0);
        decode.prefetching_blocks =
            static_cast<int32_t>(state_bytes == 2 ? followed : std::min<int64_t>(followed, wave));
    }
    return device->launch(kernel, blocks, static_cast<CUstream>(params.stream), decode, start);
}

} // namespace lattn::cuda
