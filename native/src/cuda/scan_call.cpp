#include "cuda/scan_call.h"

#include "common/dtype.h"
#include "common/problem.h"
#include "cuda/host/views.h"
#include "cuda/packed/clear_padding_launch.h"
#include "cuda/scan/scan_launch.h"
#include "cuda/segmented_scan/packed_scan_launch.h"
#include "cuda/segmented_scan/segmented_scan_launch.h"

namespace lattn::cuda {
namespace {

constexpr int kNone = -1;

// The segmented scan that serves a call, or kNone: then the general scan does. An error where the caller asks for the
// segmented scan and there is none.
Status choose_segmented_scan(const Device& device, const ScanCall& call, int& kernel) {
    kernel = kNone;
    if (call.problem.cuda_path == LATTN_CUDA_PATH_GENERAL) return ok();
    const auto check = is_packed(call.problem) ? check_packed_scan : check_segmented_scan;
    if (call.problem.cuda_path == LATTN_CUDA_PATH_HOPPER) return check(device, call, kernel);
    const LastErrorKept kept;
    if (check(device, call, kernel).code != LATTN_OK) kernel = kNone;
    return ok();
}

Status run_general_scan(Device& device, const ScanCall& call) {
    const lattn_problem& problem = call.problem;
    ScanParams scan = scan_params(problem, call.decay_rate);
    scan.a = input_view(call.a.view, problem, call.a.heads);
    scan.b = input_view(call.b.view, problem, call.b.heads);
    scan.c = input_view(call.c.view, problem, call.c.heads);
    const auto element_bytes = call.out_is_float ? sizeof(float) : dtype_bytes(problem.dtype);
    scan.out = output_view(call.out.view, problem, call.out.heads, static_cast<int64_t>(element_bytes));
    scan.out_is_float = call.out_is_float;
    scan.row_dim = static_cast<int32_t>(call.row_dim());
    scan.value_dim = static_cast<int32_t>(call.value_dim());
    scan.initial = call.initial;
    scan.final = call.final;
    scan.block_states = call.block_states;
    scan.block_grads = call.block_grads;
    scan.packed = packed_batch(problem, call.pool);
    if (call.backwards) {
        scan.backwards = 1;
        scan.shift = 0;
        scan.read_scale = 1.0f;
        scan.update_scale = static_cast<float>(problem.scale);
    }
    return launch_scan(device, problem, scan, call.stream);
}

} // namespace

Status scan_workspace_bytes(const Device& device, const ScanCall& call, uint64_t& bytes) {
    int kernel = kNone;
    LATTN_RETURN_IF_ERROR(choose_segmented_scan(device, call, kernel));
    if (kernel == kNone)
        bytes = 0;
    else
        bytes = is_packed(call.problem) ? packed_scan_workspace_bytes(device, call, kernel)
                                        : segmented_scan_workspace_bytes(device, call, kernel);
    return ok();
}

Status run_scans(Device& device, const std::vector<ScanCall>& calls) {
    std::vector<ScanCall> segmented;
    std::vector<int> kernels;
    for (const ScanCall& call : calls) {
        int kernel = kNone;
        LATTN_RETURN_IF_ERROR(choose_segmented_scan(device, call, kernel));
        if (kernel == kNone) {
            if (is_packed(call.problem)) LATTN_RETURN_IF_ERROR(clear_padding(device, call));
            LATTN_RETURN_IF_ERROR(run_general_scan(device, call));
        } else if (is_packed(call.problem)) {
            LATTN_RETURN_IF_ERROR(launch_packed_scan(device, call, kernel));
        } else {
            segmented.push_back(call);
            kernels.push_back(kernel);
        }
    }
    return launch_segmented_scans(device, segmented, kernels);
}

} // namespace lattn::cuda
