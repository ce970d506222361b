// Views of the C ABI as operands of a scan.
#pragma once

#include "common/dtype.h"
#include "common/problem.h"
#include "cpu/scan.h"
#include "cpu/sequences.h"

namespace lattn::cpu {

inline void* offset(void* data, int64_t elements, lattn_dtype dtype) {
    if (data == nullptr) return nullptr;
    return static_cast<char*>(data) + elements * static_cast<int64_t>(dtype_bytes(dtype));
}

inline const void* offset(const void* data, int64_t elements, lattn_dtype dtype) {
    return offset(const_cast<void*>(data), elements, dtype);
}

inline void* row_data(const lattn_view& view, int64_t batch, int64_t head, int64_t column, lattn_dtype dtype) {
    return offset(view.data, batch * view.stride_b + head * view.stride_h + column, dtype);
}

inline void* row_data(const lattn_view& view, const Sequence& sequence, int64_t head, int64_t column,
                      lattn_dtype dtype) {
    return offset(row_data(view, sequence.entry, head, column, dtype), sequence.first * view.stride_n, dtype);
}

// The rows of heads head, head + 1, ... of a sequence, as members `stride_member` elements apart, from `column` on.
inline Rows rows_of(const lattn_view& view, const Sequence& sequence, int64_t head, int64_t stride_member,
                    int64_t column, lattn_dtype dtype) {
    return {row_data(view, sequence, head, column, dtype), stride_member, view.stride_n};
}

// Which axis of a [D, E] state is the K axis of the scan; `column` is the first of its L axis.
enum class StateLayout { kKeyByValue, kValueByKey };

inline States states_of(const lattn_states_view& view, int64_t batch, int64_t head, int64_t block, StateLayout layout,
                        int64_t column, lattn_dtype dtype) {
    States states;
    states.stride_member = view.stride_h;
    states.stride_block = view.stride_block;
    states.stride_row = layout == StateLayout::kKeyByValue ? view.stride_d : view.stride_e;
    states.stride_column = layout == StateLayout::kKeyByValue ? view.stride_e : view.stride_d;
    const int64_t elements = batch * view.stride_b + head * view.stride_h + block * view.stride_block;
    states.data = offset(view.data, elements + column * states.stride_column, dtype);
    states.dtype = dtype;
    return states;
}

inline States states_of(const lattn_state_view& view, int64_t batch, int64_t head, StateLayout layout, int64_t column,
                        lattn_dtype dtype) {
    return states_of(lattn_states_view{view.data, view.stride_b, view.stride_h, 0, view.stride_d, view.stride_e}, batch,
                     head, 0, layout, column, dtype);
}

} // namespace lattn::cpu
