// The one chunked scan that forward and all gradients are made of.
//
// With x, y [N, K], z [N, L], a state S [K, L] and g = exp(-s), a chunk of m tokens that is entered with S computes
//
//     out_i = intra_scale * sum_{j<=i} g^(i-j) (x_i . y_j) z_j  +  state_scale * g^(i+shift) S^T x_i
//     S'    = g^m S + update_scale * sum_j g^(m-j-shift) y_j (x) z_j
//
// with shift = 1 forwards. A reverse scan takes the tokens last to first, with shift = 0. Chunks are cut at multiples
// of kChunk tokens from the start of the sequence in both directions, so a token's arithmetic depends on its position.
//
// A scan serves a group of members at once, the value heads that share an output row: out is their sum.
#pragma once

#include <cstddef>
#include <cstdint>

#include "lightning_attn.h"

namespace lattn::cpu {

// Divides 64, so that every state block ends with a chunk.
constexpr int64_t kChunk = 64;

// Scratch rows start on a cache line, which also holds a vector of any instruction set.
constexpr std::size_t kAlignment = 64;

// Rows of X contiguous elements, one per token and member. data NULL: all zeros.
struct Rows {
    const void* data = nullptr;
    int64_t stride_member = 0;
    int64_t stride_token = 0;
};

// States [members, blocks, K, L] of any strides. data NULL: absent. Of the arithmetic type, but for the initial and the
// final ones, which may have 16 bits.
struct States {
    void* data = nullptr;
    lattn_dtype dtype = 0;
    int64_t stride_member = 0;
    int64_t stride_block = 0;
    int64_t stride_row = 0;
    int64_t stride_column = 0;
};

struct Scan {
    int64_t tokens = 0;
    int64_t rows = 0;    // K
    int64_t columns = 0; // L
    int64_t members = 1;
    int64_t block_size = 0;
    bool reverse = false;
    double intra_scale = 1;
    double state_scale = 1;
    double update_scale = 1;

    Rows x;
    Rows y;
    Rows z;
    const void* decay_rate = nullptr; // [members]

    States initial;      // before the first token that the scan takes
    States block_states; // forwards: receives the state before each block
    States final_state;  // receives the state after the last token that the scan takes
    States grad_blocks;  // gradient of the state before each block: reverse adds it when the block is done
    States grad_final;   // gradient of the final state, for grad_decay_rate
    void* output = nullptr;
    int64_t output_stride_token = 0;

    // d/ds of sum_i out_i . partner_i + <block states, grad_blocks> + <final state, grad_final>, per member. Forwards
    // only. Carries R = dS/ds next to S, R' = g^m (R - m S) - sum_j (m-1-j) g^(m-1-j) y_j (x) z_j: nothing cancels.
    double* grad_decay_rate = nullptr;
    Rows partner; // [N, L]
};

// Where the kernels keep a scan's packed chunk, in elements of the arithmetic type from the start of the scratch.
// Leading dimensions are an odd number of cache lines: power-of-two strides would put a column into few cache sets.
struct ScanLayout {
    int64_t ld_rows;    // of [., K] matrices
    int64_t ld_columns; // of [., L] matrices
    int64_t ld_chunk;   // of [., kChunk] matrices
    int64_t x;          // [kChunk, K]
    int64_t y;          // [kChunk, K]
    int64_t y_transposed;
    int64_t z;          // [kChunk, L]
    int64_t z_weighted; // [kChunk, L]
    int64_t scores;     // [kChunk, kChunk]
    int64_t output;     // [kChunk, L]
    int64_t partner;    // [kChunk, L], these three only for grad_decay_rate
    int64_t z_transposed;
    int64_t partner_scores;
    int64_t members;       // the first member's part, of member_elements each:
    int64_t state;         // [K, L]
    int64_t state_tangent; // [K, L], only for grad_decay_rate
    int64_t decay;         // g^n, n = 0 .. kChunk
    int64_t score_weights; // intra_scale * g^(kChunk-1-t), zero for t >= kChunk
    int64_t member_elements;
    int64_t elements;
};

ScanLayout layout_of(const Scan& scan, std::size_t element_bytes);

} // namespace lattn::cpu
