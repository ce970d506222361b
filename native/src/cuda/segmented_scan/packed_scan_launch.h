// Launches the segmented scan of a packed batch.
#pragma once

#include "cuda/scan_call.h"

namespace lattn::cuda {

// The kernel that serves a call of a packed batch; LATTN_NOT_SUPPORTED where there is none.
Status check_packed_scan(const Device& device, const ScanCall& call, int& kernel);

uint64_t packed_scan_workspace_bytes(const Device& device, const ScanCall& call, int kernel);

Status launch_packed_scan(Device& device, const ScanCall& call, int kernel);

} // namespace lattn::cuda
