// The segmented scan from the host.
#pragma once

#include "cuda/scan_call.h"

namespace lattn::cuda {

// LATTN_OK if the segmented scan has a kernel for states of so many rows on this device, otherwise what it lacks.
// `kernel` is its index in the dispatch table.
Status find_segmented_scan(const Device& device, lattn_dtype dtype, int64_t row_dim, int& kernel);

// The same for one call: also its tensors must be ones that tensor copies can address.
Status check_segmented_scan(const Device& device, const ScanCall& call, int& kernel);

// For a call that passed the check.
uint64_t segmented_scan_workspace_bytes(const Device& device, const ScanCall& call, int kernel);

// Launches scans that need nothing of each other, on one stream, with workspaces of their own. `kernels`: of each call.
Status launch_segmented_scans(Device& device, const std::vector<ScanCall>& calls, const std::vector<int>& kernels);

} // namespace lattn::cuda
