// Parameters of the segmented scan, shared by host and device code.
//
// The scan of scan_params.h with the sequence cut into segments of kSegmentTokens tokens. Within a segment U is the
// state of its own tokens alone and S the state before it; the state is X = g^n S + U after n of its tokens, and
//
//   out_i = scale * g^(i+shift) X^T a_i + scale * sum_{j<=i} g^(i-j) (a_i . b_j) c_j
//   U    <- g^m U + sum_j g^(m-shift-j) b_j (x) c_j                      chunk of m tokens, i, j in it in scan order
//   S    <- g^L S + U, U <- 0                                            after a segment of L tokens
//
// with shift 1 forwards and 0 backwards. Segments and chunks begin at multiples of their lengths, counted from the
// call's first token whatever the direction: backwards the first ones may be short. Chunks are numbered in scan order,
// so that segments begin at multiples of their chunks: forwards from 0, backwards from what the first segment lacks.
// States outside are state_scale times those here: backwards the scale is that of the update.
//
// Where heads decay fast, U of a segment's end holds its last R tokens alone, those before them weigh less than 2^-40
// there: after L - R tokens of the segment S <- g^(L-R) S + U, U <- 0, X = g^(n-(L-R)) S + U; and S <- U at its end.
#pragma once

#include <cstdint>

#include "packed/clear_padding_params.h"
#include "packed/packed_batch.h"
#include "ptx/tensor_map.h"
#include "scan/scan_params.h"

namespace lattn::cuda {

// A tensor [B, H, N, X] of 16-bit elements as tensor copies see it, see encode_boxed(); boxes of 64 x 64 elements
// (out: of 16 tokens).
struct BoxedTensor {
    ptx::TensorMap map;
    int32_t columns;        // X
    int32_t heads_per_head; // scan heads that share one head of this tensor
    int32_t repeats_batch;  // every sequence reads the first one's: the batch axis has stride 0
    int32_t repeats_heads;
};

enum ScanOut : int32_t {
    kElementOut, // `out`
    kFloatOut,   // `float_out`
    kNoOut,      // states alone are wanted
};

// A state per sequence and head.
struct KeptState {
    float* data; // NULL: absent
    int64_t stride_b, stride_h, stride_row, stride_column;
};

// What the sequences of a packed batch differ in; those of another call do not.
struct SequenceScan {
    KeptState initial; // [B, H, A, E], of state_type
    KeptState final;   // [B, H, A, E], of state_type
    // [B * H * value_slices, state_entries] states as registers hold them; NULL if state_entries is 0.
    //   split:      U of a segment from the pass over sums, at the entry of the segment after it
    //   combined:   S of that segment instead, if a job begins there
    //   not split:  S of the present segment, where registers have no room for it
    float* workspace;
    int32_t state_entries;
    int32_t split;    // 1: jobs of segments_per_job segments, 0: one job walks all segments of a sequence
    int32_t combined; // 1: by a pass over the sums, 0: every job combines them itself
    int32_t segments_per_job;
    int32_t segments;        // ceil(tokens / kSegmentTokens)
    int32_t summed_segments; // those before the last job of a sequence, if split
    int32_t first_chunk;
    int32_t end_chunk;
    int32_t short_chunk; // the one that may have fewer tokens: forwards the last, backwards the first
    int32_t short_tokens;
    int32_t token_offset; // in a packed batch
    int32_t copied_slot;  // in a packed batch: that of its states if tensor copies move them, -1 if threads do
};

// What a scan is told besides its tensors.
struct CallScan : SequenceScan {
    const float* decay_rate; // [H], nats per token
    StateView block_states;  // [B, H, blocks, A, E]: forwards, the state before each block is written here
    StateView block_grads;   // [B, H, blocks, A, E]: backwards, added to the state once the block is passed
    float* float_out;        // [B, H, N, E], contiguous
    ScanOut written;
    PoolType state_type; // others than fp32: of packed sequences only
    int32_t row_parts;   // of 64 rows, in a state of the workspace
    // Segments by which the first job of a sequence is shorter than segments_per_job; 0 in a packed batch. Otherwise
    // there are two jobs, and each long one has a CTA of its own.
    int32_t first_job_lacks;
    // 1: this kernel needs nothing of the one before it, which began after the call's inputs were there
    int32_t overlaps;
    int32_t followed;      // by another scan of the same call, which may start while this one drains
    int32_t b_and_c_recur; // in another kernel soon: a and the output leave L2 to them
    int64_t tokens;        // of the tensors
    int64_t block_size;    // tokens, a multiple of the chunk
    int32_t backwards;
    int32_t batch;
    int32_t heads;
    int32_t row_dim;      // A
    int32_t value_dim;    // E
    int32_t value_slices; // ceil(E / columns per CTA)
    float scale;
    float state_scale;
    float inverse_state_scale;
};

struct SegmentedScanParams : CallScan {
    BoxedTensor a;   // [B, H, N, A]
    BoxedTensor b;   // [B, H, N, A]
    BoxedTensor c;   // [B, H, N, E]
    BoxedTensor out; // [B, H, N, E]
};

// A packed batch: every sequence of it is a scan of its own, whose SequenceScan follows from this and cu_seqlens.
struct PackedCall {
    CallScan call; // what all sequences have in common, without states
    PackedBatch packed;
    ClearPaddingParams padding; // of the output; data NULL: it has none
    int32_t multiprocessors;
    int32_t may_cut;              // whether a sequence can be long enough
    int32_t copies_states;        // whether tensor copies move the states of the pool
    int32_t prefetched_row_bytes; // of a value slice of a state that threads read, 0: it is not to be prefetched
    int32_t state_floats;         // of a state in the workspace
    int32_t outside_entries;      // of a sequence in the workspace, besides those of its sums
    char* initial_copies;         // [tokens / kCutSequenceTokens + 1, heads, A, E] of the pool's type, written
};

// Sequences that the lanes of a warp can know.
constexpr int kFewSequences = 32;

// Of a sequence: the segments of a job, or one segment of the pass over sums, for all heads and value slices.
struct PackedPart {
    int32_t sequence;
    int32_t index;
};

// What one of the passes walks.
struct PackedScanParams : PackedCall {
    BoxedTensor a, b, c, out; // as above, B = 1
    ptx::TensorMap zeros;     // of 64 x 64 elements, but for the box at 0: see encode_zeros()
    ptx::TensorMap pool_map;  // [slots, H, A, E] of fp32, if copies_states
    // 1: there are at most kFewSequences, none of which is cut. Each CTA finds out itself what they are, and clears
    // what belongs to none, so that this is the only kernel. 0: a kernel before this one has written what follows.
    int32_t few;
    const SequenceScan* sequences;
    const PackedPart* parts;
    const int32_t* part_count;
    uint32_t jobs_per_part;
};

} // namespace lattn::cuda
