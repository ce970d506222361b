// Parameters of the kernel that prepares a packed batch for the segmented scan, shared by host and device code.
#pragma once

#include "packed/clear_padding_params.h"
#include "segmented_scan/segmented_scan_config.h"
#include "segmented_scan/segmented_scan_params.h"

namespace lattn::cuda {

constexpr int kSequenceTableThreads = kClearPaddingThreads;

// A sequence is cut into jobs where a single one would be longer than so many quarters of what each multiprocessor has
// to do.
constexpr int64_t kLongestJobQuarters = 5;

// Tokens by which the beginnings of sequences of two segments or more differ at least.
constexpr int64_t kCutSequenceTokens = kSegmentTokens + 1;

enum PackedPass { kScanPass, kSumsPass, kCombinePass, kPackedPasses };

struct SequenceTableParams {
    SequenceScan call; // of a single sequence with all tokens; without states
    PackedBatch packed;
    ClearPaddingParams padding; // of the output; data NULL: it has none
    int32_t multiprocessors;
    int32_t may_cut;         // whether a sequence can be long enough
    int32_t state_floats;    // of a state in the workspace
    int32_t outside_entries; // of a sequence in the workspace, besides those of its sums
    // Written:
    SequenceScan* table;              // [sequences]
    PackedPart* parts[kPackedPasses]; // each of part_capacity
    int32_t* part_counts;             // [kPackedPasses]
    int32_t part_capacity;            // tokens / kSegmentTokens + sequences: enough for sequences that do not overlap
    char* initial_copies;             // [tokens / kCutSequenceTokens + 1, heads, A, E] of the pool's type
};

} // namespace lattn::cuda
