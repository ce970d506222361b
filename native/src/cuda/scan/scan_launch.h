// Launches the scan of scan_params.h for one problem.
#pragma once

#include "cuda/host/device.h"
#include "cuda/scan/scan_params.h"

namespace lattn::cuda {

// The parameters that only depend on the problem; the caller fills in tensors, states and scales.
ScanParams scan_params(const lattn_problem& problem, const void* decay_rate);

// Fills in value_slices and queues the kernel.
Status launch_scan(Device& device, const lattn_problem& problem, ScanParams params, CUstream stream);

} // namespace lattn::cuda
