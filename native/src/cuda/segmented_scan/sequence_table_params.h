// Parameters of the kernel that prepares a packed batch for the segmented scan, shared by host and device code.
#pragma once

#include "segmented_scan/segmented_scan_config.h"
#include "segmented_scan/segmented_scan_params.h"

namespace lattn::cuda {

constexpr int kSequenceTableThreads = 512;

// Sequences are cut into jobs where one job for all of a sequence would be longer than so many quarters of what each
// multiprocessor has to do.
constexpr int64_t kLongestJobQuarters = 5;

// Whether a sequence can be that long: it has no more tokens than all of them together.
inline bool may_cut_sequences(int64_t heads_and_slices, int64_t multiprocessors, int64_t tokens) {
    return tokens > kSegmentTokens && kLongestJobQuarters * heads_and_slices < 4 * multiprocessors;
}

// Tokens by which the beginnings of sequences of two segments or more differ at least.
constexpr int64_t kCutSequenceTokens = kSegmentTokens + 1;

// What the tensor maps of the call are changed by.
struct PackedTensor {
    char* data;
    int64_t stride_bytes; // from token to token
};

enum PackedPass { kScanPass, kSumsPass, kCombinePass, kPackedPasses };

struct SequenceTableParams {
    SegmentedScanParams call; // of a single sequence with all tokens; `initial` and `final` without a slot
    PackedTensor a, b, c, out;
    const void* cu_seqlens; // [sequences + 1]
    const void* slots;      // [sequences]; NULL: slot b of sequence b
    const uint8_t* has_initial; // [sequences]; NULL: none has
    int32_t cu_seqlens_are_int64;
    int32_t slots_are_int64;
    int64_t slot_count;
    int64_t stride_slot;
    int32_t has_pool;
    int32_t state_bytes; // of an element
    int32_t sequences;
    int32_t multiprocessors;
    int32_t may_cut; // may_cut_sequences()
    int32_t state_floats;    // of a state in the workspace
    int32_t outside_entries; // of a sequence in the workspace, besides those of its sums
    // Written:
    SegmentedScanParams* table;        // [sequences]
    PackedPart* parts[kPackedPasses];  // scan: [tokens / kSegmentTokens + sequences]; others: [tokens / kSegmentTokens]
    int32_t* part_counts;              // [kPackedPasses]
    char* initial_copies;              // [tokens / kCutSequenceTokens + 1, heads, A, E] of the pool's type
};

} // namespace lattn::cuda
