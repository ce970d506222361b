// Parameters and sizes of the gated norm kernels, shared by host and device code.
#pragma once

#include <cstdint>

namespace lattn::cuda {

struct GatedNormTensor {
    void* data;                           // [B, H, N, E]
    int64_t stride_b, stride_h, stride_n; // elements; unit stride along the last axis
};

// Channels are counted over all heads, c = h E + e, and cut into groups of `group_channels`.
struct GatedNormShape {
    int64_t rows;   // B * N
    int64_t tokens; // N
    int32_t head_dim;
    int32_t groups;
    int32_t group_channels;
    int32_t pieces;       // of 16 bytes in a group, the last one perhaps in part
    int32_t team_log2;    // threads that have a group of a row to themselves
    int32_t step_heads;   // from a thread's piece to its next one, in heads
    int32_t step_columns; // and columns
    int32_t activation;   // lattn_activation
    float eps;
    float inverse_channels; // 1 / group_channels
};

struct GatedNormParams {
    GatedNormShape shape;
    GatedNormTensor x;
    GatedNormTensor gate;
    const void* weight; // [H E]
    GatedNormTensor output;
};

struct GatedNormBackwardParams {
    GatedNormShape shape;
    GatedNormTensor x;
    GatedNormTensor gate;
    const void* weight; // [H E]
    GatedNormTensor grad_output;
    GatedNormTensor grad_x;    // data NULL: not wanted
    GatedNormTensor grad_gate; // data NULL: not wanted
    float* partial;            // [slices, H E]: the weight's gradient from each slice of rows; NULL: not wanted
    int64_t slices;
    int32_t slice_rows;
};

struct GatedNormSumParams {
    const float* partial; // [slices, channels]
    void* grad_weight;    // [channels]
    int64_t slices;
    int64_t channels;
};

constexpr int kGatedNormThreads = 512;
constexpr int kGatedNormBackwardThreads = 256;
constexpr int kGatedNormBytes = 16; // of a piece, what a thread loads at once

// Pieces that a thread keeps in registers, and that a team is made for. What is beyond, in groups too large for the
// largest team, is read again.
constexpr int kGatedNormPieces = 2;

// Threads of a team, as a power of two: as many as have that number of pieces each.
constexpr int gated_norm_team_log2(int64_t pieces, int cta_threads) {
    int log2 = 0;
    while ((1 << log2) < cta_threads && (int64_t{kGatedNormPieces} << log2) < pieces) ++log2;
    return log2;
}

// Addresses of single elements leave fewer registers.
constexpr int gated_norm_pieces(bool whole) {
    return whole ? kGatedNormPieces : 1;
}

// Slices of rows whose parts of the weight's gradient are summed apart. A number of its own, not the GPU's: the sum
// must not depend on that.
constexpr int64_t kGatedNormSlices = 512;

constexpr int kGatedNormSumColumns = 32;
constexpr int kGatedNormSumThreads = 512;

} // namespace lattn::cuda
