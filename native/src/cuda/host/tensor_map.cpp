#include "cuda/host/tensor_map.h"

#include <climits>
#include <cstring>

#include "cuda/segmented_scan/segmented_scan_config.h"

namespace lattn::cuda {
namespace {

constexpr int64_t kElementBytes = 2;
constexpr auto kElementType = CU_TENSOR_MAP_DATA_TYPE_BFLOAT16; // to copies all types of 16 bits are alike
constexpr int64_t kStateBytes = 4;
constexpr int64_t kAlignment = 16;
constexpr int64_t kStrideLimit = int64_t{1} << 40; // bytes
constexpr uint32_t kBoxColumns = 64;

Status check_stride(const BoxedView& tensor, const char* axis, int64_t size, int64_t stride, bool may_repeat) {
    if (size <= 1 || (may_repeat && stride == 0)) return ok();
    const int64_t bytes = stride * kElementBytes;
    if (bytes > 0 && bytes < kStrideLimit && bytes % kAlignment == 0) return ok();
    return error(LATTN_NOT_SUPPORTED,
                 "the Hopper kernel needs a stride of %s along %s that is positive and a multiple of %lld elements, "
                 "not %lld",
                 tensor.name, axis, static_cast<long long>(kAlignment / kElementBytes), static_cast<long long>(stride));
}

// A tensor of four axes, the innermost first, whose boxes are of `columns` by `rows` elements.
Status encode_map(const Driver& driver, const char* name, CUtensorMapDataType type, void* data,
                  const cuuint64_t (&sizes)[4], const cuuint64_t (&strides)[3], uint32_t columns, uint32_t rows,
                  ptx::TensorMap& encoded) {
    const cuuint32_t box[4] = {columns, rows, 1, 1};
    const cuuint32_t steps[4] = {1, 1, 1, 1};
    CUtensorMap map;
    LATTN_RETURN_IF_ERROR(
        check_driver(driver,
                     driver.TensorMapEncodeTiled(&map, type, 4, data, sizes, strides, box, steps,
                                                 CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                                                 CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE),
                     "cuTensorMapEncodeTiled", name));
    static_assert(sizeof(map) == sizeof(encoded));
    std::memcpy(&encoded, &map, sizeof(map));
    return ok();
}

} // namespace

Status check_boxed(const lattn_problem& problem, const BoxedView& tensor) {
    if (reinterpret_cast<uintptr_t>(tensor.view.data) % static_cast<uintptr_t>(kAlignment) != 0)
        return error(LATTN_NOT_SUPPORTED, "the Hopper kernel needs %s at an address that is a multiple of %lld bytes",
                     tensor.name, static_cast<long long>(kAlignment));
    if (problem.tokens > INT_MAX)
        return error(LATTN_NOT_SUPPORTED, "the Hopper kernel takes at most %d tokens, not %lld", INT_MAX,
                     static_cast<long long>(problem.tokens));
    LATTN_RETURN_IF_ERROR(check_stride(tensor, "tokens", problem.tokens, tensor.view.stride_n, false));
    // The address of a packed batch's map is a box before the tensor's.
    const int64_t stride_n = problem.tokens > 1 ? tensor.view.stride_n * kElementBytes : 0;
    if (is_packed(problem) && SegmentedScanConfig<64>::kChunk * stride_n > reinterpret_cast<intptr_t>(tensor.view.data))
        return error(LATTN_NOT_SUPPORTED, "the Hopper kernel needs a smaller stride of %s along tokens than %lld",
                     tensor.name, static_cast<long long>(tensor.view.stride_n));
    LATTN_RETURN_IF_ERROR(check_stride(tensor, "heads", tensor.heads, tensor.view.stride_h, true));
    return check_stride(tensor, "batch", stored_batch(problem), tensor.view.stride_b, true);
}

Status encode_boxed(const Driver& driver, const lattn_problem& problem, const BoxedView& tensor, uint32_t tokens,
                    BoxedTensor& boxed) {
    const auto repeats = [](int64_t size, int64_t stride) { return size <= 1 || stride == 0; };
    boxed.columns = static_cast<int32_t>(tensor.columns);
    boxed.heads_per_head = static_cast<int32_t>(problem.heads_v / tensor.heads);
    boxed.repeats_heads = repeats(tensor.heads, tensor.view.stride_h);
    boxed.repeats_batch = repeats(stored_batch(problem), tensor.view.stride_b);

    const int64_t row_bytes = ceil_div(tensor.columns * kElementBytes, kAlignment) * kAlignment;
    const auto stride_bytes = [&](int64_t size, int64_t stride) {
        return static_cast<cuuint64_t>(repeats(size, stride) ? row_bytes : stride * kElementBytes);
    };
    const auto size_of = [](int64_t size, bool repeated) { return static_cast<cuuint64_t>(repeated ? 1 : size); };
    const auto columns = static_cast<cuuint64_t>(tensor.columns);
    const auto all_tokens = static_cast<cuuint64_t>(problem.tokens);
    const cuuint64_t heads = size_of(tensor.heads, boxed.repeats_heads);
    const cuuint64_t token_bytes = stride_bytes(problem.tokens, tensor.view.stride_n);
    const cuuint64_t head_bytes = stride_bytes(tensor.heads, tensor.view.stride_h);
    char* const data = static_cast<char*>(tensor.view.data);
    if (is_packed(problem)) {
        const cuuint64_t sizes[4] = {columns, tokens, all_tokens + 1, heads};
        const cuuint64_t strides[3] = {token_bytes, token_bytes, head_bytes};
        return encode_map(driver, tensor.name, kElementType, data - tokens * token_bytes, sizes, strides, kBoxColumns,
                          tokens, boxed.map);
    }
    const cuuint64_t sizes[4] = {columns, all_tokens, heads, size_of(stored_batch(problem), boxed.repeats_batch)};
    const cuuint64_t strides[3] = {token_bytes, head_bytes, stride_bytes(stored_batch(problem), tensor.view.stride_b)};
    return encode_map(driver, tensor.name, kElementType, data, sizes, strides, kBoxColumns, tokens, boxed.map);
}

Status encode_zeros(const Driver& driver, const BoxedView& tensor, uint32_t tokens, ptx::TensorMap& map) {
    const cuuint64_t sizes[4] = {kAlignment / kElementBytes, 1, 1, 1};
    const cuuint64_t strides[3] = {kAlignment, kAlignment, kAlignment};
    return encode_map(driver, tensor.name, kElementType, tensor.view.data, sizes, strides, kBoxColumns, tokens, map);
}

bool can_box_states(const lattn_problem& problem, const lattn_pool& pool) {
    const auto fits = [](int64_t size, int64_t stride) {
        const int64_t bytes = stride * kStateBytes;
        return size <= 1 || (bytes > 0 && bytes < kStrideLimit && bytes % kAlignment == 0);
    };
    const lattn_state_view& states = pool.states;
    return pool.state_dtype == LATTN_FLOAT32 && pool.slot_count >= 1 && pool.slot_count <= INT_MAX &&
           reinterpret_cast<uintptr_t>(states.data) % static_cast<uintptr_t>(kAlignment) == 0 && states.stride_e == 1 &&
           fits(problem.head_dim_qk, states.stride_d) && fits(problem.heads_v, states.stride_h) &&
           fits(pool.slot_count, states.stride_b);
}

Status encode_boxed_states(const Driver& driver, const lattn_problem& problem, const lattn_pool& pool, uint32_t rows,
                           ptx::TensorMap& boxed) {
    const lattn_state_view& states = pool.states;
    // Of an axis of one element any stride will do that the driver takes.
    const auto stride_bytes = [&](int64_t size, int64_t stride) {
        return static_cast<cuuint64_t>((size > 1 ? stride : states.stride_d) * kStateBytes);
    };
    const cuuint64_t sizes[4] = {static_cast<cuuint64_t>(problem.head_dim_v),
                                 static_cast<cuuint64_t>(problem.head_dim_qk), static_cast<cuuint64_t>(problem.heads_v),
                                 static_cast<cuuint64_t>(pool.slot_count)};
    const cuuint64_t strides[3] = {stride_bytes(problem.head_dim_qk, states.stride_d),
                                   stride_bytes(problem.heads_v, states.stride_h),
                                   stride_bytes(pool.slot_count, states.stride_b)};
    return encode_map(driver, "the pool", CU_TENSOR_MAP_DATA_TYPE_FLOAT32, states.data, sizes, strides,
                      kStateBoxColumns, rows, boxed);
}

} // namespace lattn::cuda
