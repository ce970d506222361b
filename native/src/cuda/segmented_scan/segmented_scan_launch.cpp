#include "cuda/segmented_scan/segmented_scan_launch.h"

#include <algorithm>
#include <climits>

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
constexpr uint32_t kChunk = SegmentedScanConfig<64>::kChunk;
constexpr uint32_t kOutputRows = SegmentedScanConfig<64>::kOutputRows;
constexpr int64_t kCombineThreads = SegmentedScanConfig<64>::kCombineThreads;

// How a call is cut into jobs, and what it keeps in the workspace.
struct Plan {
    int64_t value_slices;
    int64_t sequences;
    int64_t segments;
    int64_t segments_per_job;
    bool combined; // by a pass of its own
    int64_t row_parts;
    bool wide_sums;
    int64_t state_floats;
    int64_t state_entries; // of the workspace, per sequence

    int64_t jobs_per_sequence() const { return ceil_div(segments, segments_per_job); }
    int64_t jobs() const { return sequences * jobs_per_sequence(); }
    bool split() const { return jobs_per_sequence() > 1; }
    int64_t summed_segments() const { return (jobs_per_sequence() - 1) * segments_per_job; } // before the last job
    int64_t sum_tiles() const { return sequences * summed_segments() * row_parts; }

    uint64_t workspace_bytes() const {
        return static_cast<uint64_t>(sequences * state_entries * state_floats) * sizeof(float);
    }
};

// Chooses who works on which segments; the results are the same bits. Times are in that of one segment's outputs: a
// job's start takes a little of it, a segment's sum less than half (as if all but the last were summed), and so do two
// more launches.
void choose_jobs(Plan& plan, int64_t multiprocessors) {
    constexpr double kJobTime = 0.1;
    constexpr double kSumTime = 0.4;
    constexpr double kLaunchTime = 0.3;
    constexpr int64_t kMostRounds = 16; // of jobs, one per multiprocessor
    const auto time_of_outputs = [&](int64_t segments_per_job) {
        const int64_t jobs = plan.sequences * ceil_div(plan.segments, segments_per_job);
        return static_cast<double>(ceil_div(jobs, multiprocessors)) *
               (static_cast<double>(segments_per_job) + kJobTime);
    };
    const double sums =
        static_cast<double>(plan.sequences * (plan.segments - 1)) / static_cast<double>(multiprocessors);
    const double time_of_passes = kSumTime * std::max(sums, 1.0) + kLaunchTime;

    plan.segments_per_job = plan.segments;
    double least = time_of_outputs(plan.segments);
    for (int64_t rounds = 1; rounds <= kMostRounds; ++rounds) {
        const int64_t jobs_per_sequence = std::min(rounds * multiprocessors / plan.sequences, plan.segments);
        if (jobs_per_sequence < 2) continue;
        const int64_t segments_per_job = ceil_div(plan.segments, jobs_per_sequence);
        const double time = time_of_outputs(segments_per_job) + time_of_passes;
        if (time >= least) continue;
        least = time;
        plan.segments_per_job = segments_per_job;
    }
}

// What of a plan follows from the sizes alone.
Plan sizes_of(const lattn_problem& problem, int64_t row_dim) {
    Plan plan{};
    plan.value_slices = ceil_div(problem.head_dim_v, kValueCols);
    plan.sequences = problem.batch * problem.heads_v * plan.value_slices;
    plan.segments = ceil_div(problem.tokens, kSegmentTokens);
    plan.row_parts = row_dim / kSumRows;
    plan.state_floats = row_dim * kValueCols;
    return plan;
}

Plan make_plan(const Device& device, const lattn_problem& problem, int64_t row_dim) {
    Plan plan = sizes_of(problem, row_dim);
    choose_jobs(plan, device.multiprocessors());
    // Without room in registers S has a place there, in the first segment too: fast heads forget within it.
    const int64_t outside_registers = row_dim > kBeforeInRegistersDim ? 1 : 0;
    plan.combined = plan.split() && (plan.segments > kSegmentsCombinedByJobs || row_dim > kBeforeInRegistersDim);
    plan.state_entries = plan.summed_segments() + outside_registers;
    // Wide CTAs of the pass over sums cost less, but they must be enough to fill the GPU.
    const int64_t wide_jobs = plan.sum_tiles() / SegmentSumConfig<2>::kGroups;
    plan.wide_sums = plan.value_slices % 2 == 0 && plan.row_parts % 2 == 0 && wide_jobs >= device.multiprocessors();
    return plan;
}

// The tensors as the copy engine sees them.
struct BoxedViews {
    BoxedView q, k, v, output;

    explicit BoxedViews(const lattn_forward_params& params)
        : q{"q", params.q, params.problem.heads_qk, params.problem.head_dim_qk},
          k{"k", params.k, params.problem.heads_qk, params.problem.head_dim_qk},
          v{"v", params.v, params.problem.heads_v, params.problem.head_dim_v},
          output{"output", params.output, params.problem.heads_v, params.problem.head_dim_v} {}
};

} // namespace

Status find_segmented_scan(const Device& device, lattn_dtype dtype, int64_t head_dim_qk, int& kernel) {
    if (device.compute_capability() != kCapability || device.driver().TensorMapEncodeTiled == nullptr ||
        device.driver().LaunchKernelEx == nullptr)
        return error(LATTN_NOT_SUPPORTED, "the Hopper kernel needs compute capability 9.0 and driver 525 or newer");
    if (find_kernel(Operation::kSegmentedScan, dtype, 0, head_dim_qk, kernel).code == LATTN_OK) return ok();
    return error(LATTN_NOT_SUPPORTED, "the Hopper kernel takes bfloat16 and float16, not %s", dtype_name(dtype));
}

Status check_segmented_scan(const Device& device, const lattn_forward_params& params, int& kernel) {
    const lattn_problem& problem = params.problem;
    LATTN_RETURN_IF_ERROR(find_segmented_scan(device, problem.dtype, problem.head_dim_qk, kernel));
    if (problem.tokens == 0 || problem.batch == 0)
        return error(LATTN_NOT_SUPPORTED, "the Hopper kernel takes no empty problem");
    const Plan sizes = sizes_of(problem, kernel_at(kernel).row_dim);
    const int64_t parts = sizes.sequences * sizes.segments * sizes.row_parts;
    if (parts > INT_MAX)
        return error(LATTN_NOT_SUPPORTED, "the Hopper kernel takes at most %d parts of work, not %lld", INT_MAX,
                     static_cast<long long>(parts));
    const BoxedViews views(params);
    LATTN_RETURN_IF_ERROR(check_boxed(problem, views.q));
    LATTN_RETURN_IF_ERROR(check_boxed(problem, views.k));
    LATTN_RETURN_IF_ERROR(check_boxed(problem, views.v));
    return check_boxed(problem, views.output);
}

uint64_t segmented_scan_workspace_bytes(const Device& device, const lattn_forward_params& params, int kernel) {
    return make_plan(device, params.problem, kernel_at(kernel).row_dim).workspace_bytes();
}

Status launch_segmented_scan(Device& device, const lattn_forward_params& params, int kernel) {
    const lattn_problem& problem = params.problem;
    const Plan plan = make_plan(device, problem, kernel_at(kernel).row_dim);
    LATTN_RETURN_IF_ERROR(check_workspace(params.workspace, params.workspace_bytes, plan.workspace_bytes()));

    SegmentedScanParams scan{};
    const BoxedViews views(params);
    LATTN_RETURN_IF_ERROR(encode_boxed(device.driver(), problem, views.q, kChunk, scan.a));
    LATTN_RETURN_IF_ERROR(encode_boxed(device.driver(), problem, views.k, kChunk, scan.b));
    LATTN_RETURN_IF_ERROR(encode_boxed(device.driver(), problem, views.v, kChunk, scan.c));
    LATTN_RETURN_IF_ERROR(encode_boxed(device.driver(), problem, views.output, kOutputRows, scan.out));
    scan.decay_rate = static_cast<const float*>(params.decay_rate);
    scan.initial = state_view(params.history);
    if (params.states.data != nullptr) {
        scan.final = states_view(params.states, problem.state_count - 1);
        if (has_block_states(problem)) scan.block_states = states_view(params.states, 0);
    }
    scan.workspace = static_cast<float*>(params.workspace);
    scan.state_entries = static_cast<int32_t>(plan.state_entries);
    scan.row_parts = static_cast<int32_t>(plan.row_parts);
    scan.split = plan.split();
    scan.combined = plan.combined;
    scan.summed_segments = static_cast<int32_t>(plan.summed_segments());
    scan.segments_per_job = static_cast<int32_t>(plan.segments_per_job);
    scan.tokens = problem.tokens;
    scan.block_size = problem.block_size;
    scan.batch = static_cast<int32_t>(problem.batch);
    scan.heads = static_cast<int32_t>(problem.heads_v);
    scan.row_dim = static_cast<int32_t>(problem.head_dim_qk);
    scan.value_dim = static_cast<int32_t>(problem.head_dim_v);
    scan.value_slices = static_cast<int32_t>(plan.value_slices);
    scan.segments = static_cast<int32_t>(plan.segments);
    scan.pair_scale = static_cast<float>(problem.scale);
    scan.read_scale = scan.pair_scale;

    // The kernels of a call, and those of the next one, start during the one before them and wait themselves.
    const auto launch = [&](Operation operation, int64_t blocks) {
        int pass = 0;
        LATTN_RETURN_IF_ERROR(find_kernel(operation, problem.dtype, 0, problem.head_dim_qk, pass));
        return device.launch(pass, blocks, static_cast<CUstream>(params.stream), scan, Start::kDuringPrior);
    };
    if (plan.split())
        LATTN_RETURN_IF_ERROR(plan.wide_sums
                                  ? launch(Operation::kWideSegmentSums, plan.sum_tiles() / SegmentSumConfig<2>::kGroups)
                                  : launch(Operation::kSegmentSums, plan.sum_tiles()));
    if (plan.combined)
        LATTN_RETURN_IF_ERROR(
            launch(Operation::kCombineSegments, plan.sequences * (plan.state_floats / kCombineThreads)));
    return launch(Operation::kSegmentedScan, std::min<int64_t>(plan.jobs(), device.multiprocessors()));
}

} // namespace lattn::cuda
