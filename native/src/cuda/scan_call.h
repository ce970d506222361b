// One scan of a problem, and the choice of the kernels that run it. The forward pass is one; the backward pass is
// three, with permuted arguments.
#pragma once

#include <vector>

#include "cuda/host/device.h"
#include "cuda/host/tensor_map.h"

namespace lattn::cuda {

// Which tensors a scan takes as a, b, c and out, in the formulas of scan_params.h.
struct ScanCall {
    const lattn_problem& problem;
    BoxedView a, b, c;
    BoxedView out; // data NULL: only states are wanted
    const void* decay_rate;
    void* workspace; // of scan_workspace_bytes()
    uint64_t workspace_bytes;
    CUstream stream;
    bool backwards = false;
    bool out_is_float = false; // out is fp32 and contiguous, whatever the problem's type
    StateView initial{}, final{}, block_states{}, block_grads{};
    const lattn_pool* pool = nullptr; // of a packed batch, in place of initial and final; NULL: none
    int32_t scans_at_once = 1;        // of run_scans(), which share the GPU

    int64_t row_dim() const { return a.columns; }
    int64_t value_dim() const { return c.columns; }
};

Status scan_workspace_bytes(const Device& device, const ScanCall& call, uint64_t& bytes);

// Runs scans that need nothing of each other, with workspaces of their own.
Status run_scans(Device& device, const std::vector<ScanCall>& calls);

} // namespace lattn::cuda
