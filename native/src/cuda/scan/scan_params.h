// Parameters of the scan kernel, shared by host and device code.
//
//   out_i = read_scale * g^(i+shift) X^T a_i + pair_scale * sum_{j<=i} g^(i-j) (a_i . b_j) c_j
//   X    <- g^m X + update_scale * sum_j g^(m-shift-j) b_j (x) c_j
//
// with i, j counted from the chunk's first token in scan direction, m its number of tokens and X [A, E] the carried
// state. forward: (a, b, c) = (q, k, v), shift 1.   dq: (do, v, k), shift 1. dk: (v, do, q), backwards, shift 0. dv:
// (k, q, do), backwards, shift 0.
#pragma once

#include <cstdint>

#include "packed/packed_batch.h"

namespace lattn::cuda {

// The largest D and E of every CUDA kernel.
constexpr int kMaxHeadDim = 256;

struct TensorView {
    void* data;
    int64_t stride_b, stride_h, stride_n; // elements; unit stride along the last axis
    int32_t heads_per_head;               // scan heads that share one head of this tensor
    int32_t vector_aligned;               // every row starts at a multiple of 16 bytes
};

struct StateView {
    float* data; // NULL: absent
    int64_t stride_b, stride_h, stride_block, stride_row, stride_column;
};

struct ScanParams {
    TensorView a; // [B, H, N, A]
    TensorView b; // [B, H, N, A]
    TensorView c; // [B, H, N, E]
    TensorView
        out; // [B, H, N, E]; vector_aligned: pairs may be stored as one word; data NULL: only the state is wanted
    const float* decay_rate; // [H], nats per token
    StateView initial;       // [B, H, A, E]
    StateView final;         // [B, H, A, E]
    StateView block_states;  // [B, H, blocks, A, E]: forwards, the state before each block is written here
    StateView block_grads;   // [B, H, blocks, A, E]: backwards, added to the state once the block is passed
    PackedBatch packed;      // with it tensors are [1, H, T, ..], and its pool takes the place of initial and final
    int64_t tokens;
    int64_t block_size; // tokens, a multiple of the chunk
    int32_t heads;
    int32_t row_dim;      // A
    int32_t value_dim;    // E
    int32_t value_slices; // ceil(E / columns per CTA)
    int32_t shift;        // 1 forwards, 0 backwards
    int32_t backwards;
    int32_t out_is_float; // out is fp32 whatever the element type (partial sums of grouped heads)
    float pair_scale;
    float read_scale;
    float update_scale;
};

} // namespace lattn::cuda
