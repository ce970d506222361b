// Parameters of the decay-gradient kernels, shared by host and device code.
//
//   R_t = dS_t/ds = g (R_(t-1) - S_(t-1)), R_0 = 0
//   ds  = sum_t scale q_t^T R_t do_t + sum_b <dS_b, R_b>
//
// Every term is bilinear in the D and E axes, so that a CTA sums a slice of 64 x 64 of them on its own.
#pragma once

#include "scan/scan_params.h"

namespace lattn::cuda {

struct DecayGradParams {
    TensorView q;            // [B, H, N, D]
    TensorView k;            // [B, H, N, D]
    TensorView v;            // [B, H, N, E]
    TensorView grad_output;  // [B, H, N, E]
    const float* decay_rate; // [H]
    StateView initial;       // [B, H, D, E]
    StateView block_grads;   // [B, H, blocks, D, E]: gradient of the state before each block; data NULL: none
    StateView final_grad;    // [B, H, D, E]; data NULL: none
    double* partial;         // [H, B, row_slices, value_slices], written
    PackedBatch packed;      // with it tensors are [1, H, T, ..]
    int64_t batch;
    int64_t tokens;
    int64_t block_size;
    int32_t heads;
    int32_t row_dim;      // D
    int32_t value_dim;    // E
    int32_t row_slices;   // ceil(D / 64)
    int32_t value_slices; // ceil(E / 64)
    float scale;
};

struct DecayGradReduceParams {
    const double* partial; // [H, count]
    float* grad;           // [H]
    int64_t count;         // B * row_slices * value_slices
};

} // namespace lattn::cuda
