// From the ABI's views to the kernels' views.
#pragma once

#include "common/problem.h"
#include "cuda/packed/packed_batch.h"
#include "cuda/scan/scan_params.h"

namespace lattn::cuda {

// Bytes that a load or store of several elements needs every row to be aligned to.
constexpr int64_t kLoadBytes = 16;

// Whether every row of a [batch, heads, tokens, ..] view starts at a multiple of `bytes`.
bool rows_aligned(const lattn_view& view, int64_t batch, int64_t heads, int64_t tokens, int64_t element_bytes,
                  int64_t bytes);

// A view that the kernels load 16 bytes at a time where they can; `heads` is its own head count of `scan_heads`.
TensorView input_view(const lattn_view& view, const lattn_problem& problem, int64_t heads);

// A view of elements of `element_bytes` that the kernels store in pairs where they can.
TensorView output_view(const lattn_view& view, const lattn_problem& problem, int64_t heads, int64_t element_bytes);

// The packed batch of a call; pool NULL: none. For other problems its offsets are NULL.
PackedBatch packed_batch(const lattn_problem& problem, const lattn_pool* pool);

StateView state_view(const lattn_state_view& view);

// The entries of a state sequence from `first` on.
StateView states_view(const lattn_states_view& view, int64_t first);

// The same states seen as [E, D].
StateView transposed(StateView view);

} // namespace lattn::cuda
