// Tensor maps for the copy engine (compute capability 9.0).
#pragma once

#include "common/problem.h"
#include "cuda/host/driver.h"
#include "cuda/segmented_scan/segmented_scan_params.h"

namespace lattn::cuda {

// A [B, heads, N, columns] tensor of 16-bit elements.
struct BoxedView {
    const char* name;
    lattn_view view;
    int64_t heads;
    int64_t columns;
};

// LATTN_OK if the copy engine can address the tensor; otherwise which of its properties it cannot.
Status check_boxed(const lattn_problem& problem, const BoxedView& tensor);

// For a tensor that passed the check; boxes of 64 columns of `tokens` tokens. The axes are X, N, heads, B.
//
// In a packed batch a box ends where its sequence does, though all are of one size: the axes are X, i, n, heads, of
// which element (i, n) is that of token n - tokens + i, for i < tokens and n <= N. A box from (tokens - m, n) on holds
// the m tokens before n; the rows after them are outside of axis i.
Status encode_boxed(const Driver& driver, const lattn_problem& problem, const BoxedView& tensor, uint32_t tokens,
                    BoxedTensor& boxed);

// For boxes that would lie beyond the columns of a packed tensor: all boxes of this map hold zeros, but for that at 0.
// A box that is outside of its tensor has the copy engine read the map's address, and in a packed batch's map there may
// be no memory at it.
Status encode_zeros(const Driver& driver, const BoxedView& tensor, uint32_t tokens, ptx::TensorMap& map);

// Whether the copy engine can address the states of a pool: fp32, columns without gaps.
bool can_box_states(const lattn_problem& problem, const lattn_pool& pool);

// For such a pool; boxes of kStateBoxColumns columns of `rows` rows.
Status encode_boxed_states(const Driver& driver, const lattn_problem& problem, const lattn_pool& pool, uint32_t rows,
                           ptx::TensorMap& boxed);

} // namespace lattn::cuda
