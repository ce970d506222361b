#include "cuda/host/views.h"

#include "common/dtype.h"

namespace lattn::cuda {

bool rows_aligned(const lattn_view& view, int64_t batch, int64_t heads, int64_t tokens, int64_t element_bytes,
                  int64_t bytes) {
    const auto aligned = [&](int64_t size, int64_t stride) { return size <= 1 || stride * element_bytes % bytes == 0; };
    return reinterpret_cast<uintptr_t>(view.data) % static_cast<uintptr_t>(bytes) == 0 &&
           aligned(batch, view.stride_b) && aligned(heads, view.stride_h) && aligned(tokens, view.stride_n);
}

namespace {

TensorView make_view(const lattn_view& view, const lattn_problem& problem, int64_t heads, int64_t element_bytes,
                     int64_t bytes) {
    const bool aligned = rows_aligned(view, stored_batch(problem), heads, problem.tokens, element_bytes, bytes);
    return {view.data,     is_packed(problem) ? 0 : view.stride_b,        view.stride_h,
            view.stride_n, static_cast<int32_t>(problem.heads_v / heads), aligned};
}

PoolType pool_type(lattn_dtype dtype) {
    switch (dtype) {
        case LATTN_BFLOAT16:
            return kPoolBfloat16;
        case LATTN_FLOAT16:
            return kPoolFloat16;
        default:
            return kPoolFloat32;
    }
}

} // namespace

TensorView input_view(const lattn_view& view, const lattn_problem& problem, int64_t heads) {
    return make_view(view, problem, heads, static_cast<int64_t>(dtype_bytes(problem.dtype)), kLoadBytes);
}

TensorView output_view(const lattn_view& view, const lattn_problem& problem, int64_t heads, int64_t element_bytes) {
    return make_view(view, problem, heads, element_bytes, 2 * element_bytes);
}

PackedBatch packed_batch(const lattn_problem& problem, const lattn_pool* pool) {
    PackedBatch packed{};
    packed.offsets = problem.cu_seqlens;
    packed.offsets_are_int64 = problem.cu_seqlens_dtype == LATTN_INT64;
    packed.sequences = problem.batch;
    if (pool == nullptr) return packed;
    packed.pool = pool->states.data;
    packed.pool_type = pool_type(pool->state_dtype);
    packed.slots = pool->slots;
    packed.slots_are_int64 = pool->slot_dtype == LATTN_INT64;
    packed.has_initial = pool->has_initial;
    packed.slot_count = pool->slot_count;
    packed.stride_slot = pool->states.stride_b;
    packed.stride_h = pool->states.stride_h;
    packed.stride_row = pool->states.stride_d;
    packed.stride_column = pool->states.stride_e;
    return packed;
}

StateView state_view(const lattn_state_view& view) {
    return {static_cast<float*>(view.data), view.stride_b, view.stride_h, 0, view.stride_d, view.stride_e};
}

StateView states_view(const lattn_states_view& view, int64_t first) {
    float* data = static_cast<float*>(view.data);
    if (data != nullptr) data += first * view.stride_block;
    return {data, view.stride_b, view.stride_h, view.stride_block, view.stride_d, view.stride_e};
}

StateView transposed(StateView view) {
    return {view.data, view.stride_b, view.stride_h, view.stride_block, view.stride_column, view.stride_row};
}

} // namespace lattn::cuda
