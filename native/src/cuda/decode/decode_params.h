// Parameters of the decode kernel, shared by host and device code.
#pragma once

#include "scan/scan_params.h"

namespace lattn::cuda {

struct DecodeState {
    void* data;
    int64_t stride_slot, stride_h, stride_d, stride_e;
};

struct DecodeParams {
    TensorView q;            // [B, H, 1, D]
    TensorView k;            // [B, H, 1, D]
    TensorView v;            // [B, H, 1, E]
    TensorView output;       // [B, H, 1, E]
    const float* decay_rate; // [H]
    DecodeState state_in;    // [slots, H, D, E]
    DecodeState state_out;   // [slots, H, D, E]
    const void* slots;       // [B] or NULL: slot b for row b
    int64_t slot_count;
    int32_t slots_are_int64;
    int32_t heads;
    int32_t row_dim;          // D
    int32_t value_dim;        // E
    int32_t state_vectorized; // groups of 4 columns of both states are aligned words
    float scale;
};

constexpr int kDecodeThreads = 128;

} // namespace lattn::cuda
