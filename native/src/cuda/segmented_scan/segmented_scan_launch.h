// The segmented scan from the host.
#pragma once

#include "cuda/host/kernels.h"
#include "cuda/scan_call.h"

namespace lattn::cuda {

// LATTN_OK if the segmented scan (kSegmentedScan, or kPackedScan for packed batches) has a kernel for states of so many
// rows on this device, otherwise what it lacks. `kernel` is its index in the dispatch table.
Status find_segmented_scan(const Device& device, Operation operation, lattn_dtype dtype, int64_t row_dim, int& kernel);

// LATTN_OK if the tensors of a call are ones that tensor copies can address, and not empty.
Status check_scan_tensors(const ScanCall& call);

// Slices of value columns, each of which has CTAs of its own.
int64_t segmented_scan_value_slices(const ScanCall& call);

// How many CTAs of a scan neighbouring multiprocessors are to have: those of the slices of a head, which read the same
// a and b. A kernel that comes while another one drains would else have its CTAs wherever one ends, and more bytes
// would cross L2. Only where the grid fills the device: 32 such CTAs on 132 multiprocessors take seven times as long as
// others. `split`: whether the scan waits for sums, where nothing is gained. docs/kernels/forward.md.
uint32_t ctas_side_by_side(const Device& device, const ScanCall& call, bool split, int64_t blocks);

// What a call's kernels are told, besides its states, how it is cut into jobs and the workspace.
Status make_call_params(const Device& device, const ScanCall& call, SegmentedScanParams& scan);

// LATTN_OK if the segmented scan serves a call that is no packed batch.
Status check_segmented_scan(const Device& device, const ScanCall& call, int& kernel);

// For a call that passed the check.
uint64_t segmented_scan_workspace_bytes(const Device& device, const ScanCall& call, int kernel);

// Launches scans that need nothing of each other, on one stream, with workspaces of their own. `kernels`: of each call.
Status launch_segmented_scans(Device& device, const std::vector<ScanCall>& calls, const std::vector<int>& kernels);

} // namespace lattn::cuda
