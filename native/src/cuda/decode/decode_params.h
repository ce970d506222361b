// Parameters and sizes of the decode kernels, shared by host and device code.
#pragma once

#include <cstdint>

namespace lattn::cuda {

struct DecodeTensor {
    void* data;
    int64_t stride_b, stride_h, stride_n; // elements; unit stride along the last axis
    int32_t vector_aligned;               // every row starts at a multiple of 16 bytes
};

struct DecodeState {
    void* data;
    int64_t stride_slot, stride_h, stride_d, stride_e;
};

struct DecodeParams {
    DecodeTensor q;          // [B, Hk, Td, D]; not read without output
    DecodeTensor k;          // [B, Hk, Td, D]
    DecodeTensor v;          // [B, H, Td, E]
    DecodeTensor output;     // [B, H, Td, E]; data NULL: not wanted
    const float* decay_rate; // [H]
    DecodeState state_in;    // [slots, H, D, E]
    DecodeState state_out;   // [slots, H, D, E]; data NULL: not wanted
    const void* slots;       // [B] or NULL: slot b for row b
    const void* accepted;    // [B] or NULL: all tokens
    int64_t slot_count;
    int32_t slots_are_int64;
    int32_t accepted_are_int64;
    int32_t heads;            // H
    int32_t group;            // heads of v that share a head of q and k
    int32_t tokens;           // Td
    int32_t row_dim;          // D
    int32_t value_dim;        // E
    int32_t slices;           // of value columns, one for each CTA
    int32_t state_vectorized; // 16 bytes of columns of both states are aligned words
    int32_t early_blocks;     // of the grid: those that may start during the kernel before this one
    // Of the grid, for one token: those that prefetch the state of the one early_blocks after them
    int32_t prefetching_blocks;
    float scale;
};

// The most tokens of a call, as LATTN_MAX_DECODE_TOKENS.
constexpr int kMaxDecodeTokens = 16;

// A thread owns 16 bytes of neighbouring columns of 8 neighbouring rows of a state.
constexpr int kDecodeThreadBytes = 16;
constexpr int kDecodeThreadRows = 8;
// So many threads side by side own a slice of columns; those of a warp read whole lines of 128 bytes.
constexpr int kDecodeColumnThreads = 16;

constexpr int decode_warps(int row_dim) {
    return row_dim / kDecodeThreadRows * kDecodeColumnThreads / 32;
}

// Columns of one CTA.
constexpr int decode_slice(int state_bytes) {
    return kDecodeColumnThreads * kDecodeThreadBytes / state_bytes;
}

// Threads that a multiprocessor runs at the same time, bounded by their registers.
constexpr int decode_resident_threads(int state_bytes) {
    return state_bytes == 4 ? 768 : 640;
}

} // namespace lattn::cuda
