// The forward pass by the segmented scan.
#pragma once

#include "cuda/host/device.h"

namespace lattn::cuda {

// LATTN_OK if the segmented scan has a kernel for these sizes on this device, otherwise what it lacks. `kernel` is its
// index in the dispatch table.
Status find_segmented_scan(const Device& device, lattn_dtype dtype, int64_t head_dim_qk, int& kernel);

// The same for one call: also its tensors must be ones that tensor copies can address.
Status check_segmented_scan(const Device& device, const lattn_forward_params& params, int& kernel);

// For a call that passed the check.
uint64_t segmented_scan_workspace_bytes(const Device& device, const lattn_forward_params& params, int kernel);
Status launch_segmented_scan(Device& device, const lattn_forward_params& params, int kernel);

} // namespace lattn::cuda
