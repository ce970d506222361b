// Parameters of the kernel that prepares a packed batch for the segmented scan, shared by host and device code.
#pragma once

#include "packed/clear_padding_params.h"
#include "segmented_scan/segmented_scan_params.h"

namespace lattn::cuda {

constexpr int kSequenceTableThreads = kClearPaddingThreads;

enum PackedPass { kScanPass, kSumsPass, kCombinePass, kPackedPasses };

struct SequenceTableParams : PackedCall {
    // Written:
    SequenceScan* table;              // [sequences]
    PackedPart* parts[kPackedPasses]; // each of part_capacity
    int32_t* part_counts;             // [kPackedPasses]
    int32_t part_capacity;            // tokens / kSegmentTokens + sequences: enough for sequences that do not overlap
};

} // namespace lattn::cuda
