#include "cuda/segmented_scan/segmented_scan_launch.h"

#include "common/dtype.h"
#include "common/problem.h"
#include "cuda/host/tensor_map.h"
#include "cuda/host/views.h"
#include "cuda/segmented_scan/segmented_scan_config.h"

namespace lattn::cuda {
namespace {

constexpr int kCapability = 90;
// The same in every instantiation.
constexpr int64_t kValueCols = SegmentedScanConfig<64>::kValueCols;
constexpr int64_t kCombineThreads = SegmentedScanConfig<64>::kCombineThreads;

int64_t value_slices(const lattn_problem& problem) {
    return ceil_div(problem.head_dim_v, kValueCols);
}

int64_t segment_count(const lattn_problem& problem) {
    return ceil_div(problem.tokens, kSegmentTokens);
}

// Of the state that one CTA carries.
int64_t state_floats(const lattn_problem& problem) {
    int kernel = 0;
    if (find_kernel(Operation::kSegmentedScan, problem.dtype, 0, problem.head_dim_qk, kernel).code != LATTN_OK)
        return 0;
    return kernel_at(kernel).row_dim * kValueCols;
}

// Whether the segments of a sequence go to CTAs of their own. The results are the same bits; this compares times, in
// that of one segment's outputs: a pass over sums takes less, and two more launches take a little.
bool splits_segments(const Device& device, const lattn_problem& problem) {
    constexpr double kSumsTime = 0.6;
    constexpr double kLaunchTime = 0.2;
    const int64_t sequences = problem.batch * problem.heads_v * value_slices(problem);
    const int64_t segments = segment_count(problem);
    const auto rounds = [&](int64_t blocks) { return static_cast<double>(ceil_div(blocks, device.multiprocessors())); };
    const double whole = rounds(sequences) * static_cast<double>(segments);
    const double split = rounds(sequences * segments) + kSumsTime * rounds(sequences * (segments - 1)) + kLaunchTime;
    return segments > 1 && split < whole;
}

BoxedView q_of(const lattn_forward_params& params) {
    return {"q", params.q, params.problem.heads_qk, params.problem.head_dim_qk};
}
BoxedView k_of(const lattn_forward_params& params) {
    return {"k", params.k, params.problem.heads_qk, params.problem.head_dim_qk};
}
BoxedView v_of(const lattn_forward_params& params) {
    return {"v", params.v, params.problem.heads_v, params.problem.head_dim_v};
}
BoxedView output_of(const lattn_forward_params& params) {
    return {"output", params.output, params.problem.heads_v, params.problem.head_dim_v};
}

} // namespace

Status find_segmented_scan(const Device& device, lattn_dtype dtype, int64_t head_dim_qk, int& kernel) {
    if (device.compute_capability() != kCapability || device.driver().TensorMapEncodeTiled == nullptr)
        return error(LATTN_NOT_SUPPORTED, "the Hopper kernel needs compute capability 9.0 and driver 525 or newer");
    if (find_kernel(Operation::kSegmentedScan, dtype, 0, head_dim_qk, kernel).code == LATTN_OK) return ok();
    return error(LATTN_NOT_SUPPORTED,
                 "the Hopper kernel takes bfloat16 with head_dim_qk up to 128, not %s with head_dim_qk = %lld",
                 dtype_name(dtype), static_cast<long long>(head_dim_qk));
}

Status check_segmented_scan(const Device& device, const lattn_forward_params& params) {
    const lattn_problem& problem = params.problem;
    int kernel = 0;
    LATTN_RETURN_IF_ERROR(find_segmented_scan(device, problem.dtype, problem.head_dim_qk, kernel));
    if (problem.tokens == 0 || problem.batch == 0)
        return error(LATTN_NOT_SUPPORTED, "the Hopper kernel takes no empty problem");
    LATTN_RETURN_IF_ERROR(check_boxed(problem, q_of(params)));
    LATTN_RETURN_IF_ERROR(check_boxed(problem, k_of(params)));
    LATTN_RETURN_IF_ERROR(check_boxed(problem, v_of(params)));
    return check_boxed(problem, output_of(params));
}

uint64_t segmented_scan_workspace_bytes(const Device& device, const lattn_forward_params& params) {
    const lattn_problem& problem = params.problem;
    if (!splits_segments(device, problem)) return 0;
    const int64_t states = problem.batch * problem.heads_v * value_slices(problem) * (segment_count(problem) - 1);
    return static_cast<uint64_t>(states * state_floats(problem)) * sizeof(float);
}

Status launch_segmented_scan(Device& device, const lattn_forward_params& params) {
    const lattn_problem& problem = params.problem;
    const auto stream = static_cast<CUstream>(params.stream);
    SegmentedScanParams scan{};
    LATTN_RETURN_IF_ERROR(encode_boxed(device.driver(), problem, q_of(params), scan.a));
    LATTN_RETURN_IF_ERROR(encode_boxed(device.driver(), problem, k_of(params), scan.b));
    LATTN_RETURN_IF_ERROR(encode_boxed(device.driver(), problem, v_of(params), scan.c));
    LATTN_RETURN_IF_ERROR(encode_boxed(device.driver(), problem, output_of(params), scan.out));
    scan.decay_rate = static_cast<const float*>(params.decay_rate);
    scan.initial = state_view(params.history);
    if (params.states.data != nullptr) {
        scan.final = states_view(params.states, problem.state_count - 1);
        if (has_block_states(problem)) scan.block_states = states_view(params.states, 0);
    }
    scan.tokens = problem.tokens;
    scan.block_size = problem.block_size;
    scan.batch = static_cast<int32_t>(problem.batch);
    scan.heads = static_cast<int32_t>(problem.heads_v);
    scan.row_dim = static_cast<int32_t>(problem.head_dim_qk);
    scan.value_dim = static_cast<int32_t>(problem.head_dim_v);
    scan.value_slices = static_cast<int32_t>(value_slices(problem));
    scan.segments = static_cast<int32_t>(segment_count(problem));
    scan.pair_scale = static_cast<float>(problem.scale);
    scan.read_scale = scan.pair_scale;

    const auto launch = [&](Operation operation, int64_t blocks) {
        int kernel = 0;
        LATTN_RETURN_IF_ERROR(find_kernel(operation, problem.dtype, 0, problem.head_dim_qk, kernel));
        return device.launch(kernel, blocks, stream, scan);
    };
    const int64_t sequences = problem.batch * problem.heads_v * scan.value_slices;
    if (!splits_segments(device, problem)) return launch(Operation::kSegmentedScan, sequences);

    const uint64_t needed = segmented_scan_workspace_bytes(device, params);
    if (params.workspace == nullptr || params.workspace_bytes < needed)
        return error(LATTN_INVALID_ARGUMENT, "workspace_bytes = %llu is less than the %llu this call needs",
                     static_cast<unsigned long long>(params.workspace_bytes), static_cast<unsigned long long>(needed));
    scan.segments_state = static_cast<float*>(params.workspace);
    LATTN_RETURN_IF_ERROR(launch(Operation::kSegmentSums, sequences * (scan.segments - 1)));
    LATTN_RETURN_IF_ERROR(launch(Operation::kCombineSegments, sequences * (state_floats(problem) / kCombineThreads)));
    return launch(Operation::kSegmentedScan, sequences * scan.segments);
}

} // namespace lattn::cuda
