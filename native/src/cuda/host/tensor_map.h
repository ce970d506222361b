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

// For a tensor that passed the check; boxes of 64 columns of `tokens` tokens.
Status encode_boxed(const Driver& driver, const lattn_problem& problem, const BoxedView& tensor, uint32_t tokens,
                    BoxedTensor& boxed);

// Whether the copy engine can address the states of a pool: fp32, columns without gaps.
bool can_box_states(const lattn_problem& problem, const lattn_pool& pool);

// For such a pool; boxes of kStateBoxColumns columns of `rows` rows.
Status encode_boxed_states(const Driver& driver, const lattn_problem& problem, const lattn_pool& pool, uint32_t rows,
                           ptx::TensorMap& boxed);

} // namespace lattn::cuda
