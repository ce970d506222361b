#include "cuda/segmented_scan/segmented_scan_launch.h"

#include <algorithm>
#include <climits>
#include <cmath>
#include <vector>

#include "common/dtype.h"
#include "common/problem.h"
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
    int64_t first_job_lacks; // of them
    bool combined;           // by a pass of its own
    int64_t row_parts;
    int64_t sum_rows; // of a CTA in the pass over sums
    int64_t state_floats;
    int64_t state_entries; // of the workspace, per sequence

    int64_t jobs_per_sequence() const { return ceil_div(segments + first_job_lacks, segments_per_job); }
    int64_t jobs() const { return sequences * jobs_per_sequence(); }
    bool split() const { return jobs_per_sequence() > 1; }
    int64_t summed_segments() const { // before the last job
        return split() ? (jobs_per_sequence() - 1) * segments_per_job - first_job_lacks : 0;
    }
    int64_t sums(int64_t rows) const { return sequences * summed_segments() * row_parts * kSumRows / rows; }

    uint64_t workspace_bytes() const {
        return static_cast<uint64_t>(sequences * state_entries * state_floats) * sizeof(float);
    }
};

// Chooses who works on which segments; the results are the same bits. Times are in that of one segment's outputs on a
// busy GPU: a job's start takes a little of it, a segment's sum less than half (as if all but the last were summed),
// and so do two more launches. Where multiprocessors are idle, the others are faster, down to the time that one needs
// alone.
void choose_jobs(Plan& plan, int64_t scans_at_once, int64_t multiprocessors) {
    constexpr double kJobTime = 0.1;
    constexpr double kTimeAlone = 0.87;
    constexpr double kSumTime = 0.4;
    constexpr double kLaunchTime = 0.3;
    constexpr int64_t kMostRounds = 16; // of jobs, one per multiprocessor
    const int64_t sequences = scans_at_once * plan.sequences;
    const auto time_of_outputs = [&](int64_t segments_per_job) {
        const int64_t jobs = sequences * ceil_div(plan.segments, segments_per_job);
        const int64_t rounds = ceil_div(jobs, multiprocessors);
        const double busy = static_cast<double>(jobs) / static_cast<double>(rounds * multiprocessors);
        return static_cast<double>(rounds) * (static_cast<double>(segments_per_job) + kJobTime) *
               std::max(busy, kTimeAlone);
    };
    const auto time_of_passes = [&](int64_t summed_segments) {
        const double sums = static_cast<double>(sequences * summed_segments) / static_cast<double>(multiprocessors);
        return kSumTime * std::max(sums, 1.0) + kLaunchTime;
    };

    plan.segments_per_job = plan.segments;
    double least = time_of_outputs(plan.segments);
    for (int64_t rounds = 1; rounds <= kMostRounds; ++rounds) {
        const int64_t jobs_per_sequence = std::min(rounds * multiprocessors / sequences, plan.segments);
        if (jobs_per_sequence < 2) continue;
        const int64_t segments_per_job = ceil_div(plan.segments, jobs_per_sequence);
        const double time = time_of_outputs(segments_per_job) + time_of_passes(plan.segments - 1);
        if (time >= least) continue;
        least = time;
        plan.segments_per_job = segments_per_job;
    }

    // Where scans leave multiprocessors to none, these take the first segments of all sequences.
    const int64_t idle = multiprocessors / scans_at_once - plan.sequences; // for each scan
    if (idle < 1 || idle >= plan.sequences) return;
    const int64_t short_rounds = ceil_div(plan.sequences, idle);
    const int64_t first = plan.segments / (short_rounds + 1);
    if (first == 0) return;
    const int64_t rest = plan.segments - first;
    if (static_cast<double>(rest) + kJobTime + time_of_passes(first) >= least) return;
    plan.segments_per_job = rest;
    plan.first_job_lacks = plan.segments_per_job - first;
}

// What of a plan follows from the sizes alone.
Plan sizes_of(const ScanCall& call, int64_t row_dim) {
    const lattn_problem& problem = call.problem;
    Plan plan{};
    plan.value_slices = segmented_scan_value_slices(call);
    plan.sequences = problem.batch * problem.heads_v * plan.value_slices;
    plan.segments = ceil_div(problem.tokens, kSegmentTokens);
    plan.row_parts = row_dim / kSumRows;
    plan.state_floats = row_dim * kValueCols;
    return plan;
}

Plan make_plan(const Device& device, const ScanCall& call, int64_t row_dim) {
    Plan plan = sizes_of(call, row_dim);
    choose_jobs(plan, call.scans_at_once, device.multiprocessors());
    // Without room in registers S has a place there, in the first segment too: fast heads forget within it.
    const int64_t outside_registers = row_dim > kBeforeInRegistersDim ? 1 : 0;
    plan.combined = plan.split() && (plan.summed_segments() > kSumsCombinedByJobs || row_dim > kBeforeInRegistersDim);
    plan.state_entries = plan.summed_segments() + outside_registers;
    // Tall CTAs of the pass over sums cost less, but they must be enough to fill the GPU.
    constexpr int64_t kTall = 2 * kSumRows;
    plan.sum_rows = row_dim % kTall == 0 && plan.sums(kTall) >= device.multiprocessors() ? kTall : kSumRows;
    return plan;
}

ScanOut written_by(const ScanCall& call) {
    if (call.out.view.data == nullptr) return kNoOut;
    return call.out_is_float ? kFloatOut : kElementOut;
}

void set_chunks(const ScanCall& call, const Plan& plan, SegmentedScanParams& scan) {
    const int64_t tokens = call.problem.tokens;
    const int64_t chunks = ceil_div(tokens, kChunk);
    const int64_t end = call.backwards ? plan.segments * (kSegmentTokens / kChunk) : chunks;
    scan.first_chunk = static_cast<int32_t>(end - chunks);
    scan.end_chunk = static_cast<int32_t>(end);
    scan.short_chunk = call.backwards ? scan.first_chunk : scan.end_chunk - 1;
    scan.short_tokens = static_cast<int32_t>(tokens - (chunks - 1) * kChunk);
}

KeptState kept_state(const StateView& view) {
    return {view.data, view.stride_b, view.stride_h, view.stride_row, view.stride_column};
}

// Backwards, states are kept divided by the scale, so its inverse must be an ordinary number.
Status check_scale(const ScanCall& call) {
    constexpr double kLargest = 1 << 30;
    const double magnitude = std::abs(call.problem.scale);
    if (!call.backwards || (magnitude <= kLargest && magnitude >= 1 / kLargest)) return ok();
    return error(LATTN_NOT_SUPPORTED, "the Hopper kernel needs a scale of magnitude 2^-30 to 2^30 backwards, not %g",
                 call.problem.scale);
}

} // namespace

Status find_segmented_scan(const Device& device, Operation operation, lattn_dtype dtype, int64_t row_dim, int& kernel) {
    if (device.compute_capability() != kCapability || device.driver().TensorMapEncodeTiled == nullptr ||
        device.driver().LaunchKernelEx == nullptr)
        return error(LATTN_NOT_SUPPORTED, "the Hopper kernel needs compute capability 9.0 and driver 525 or newer");
    if (find_kernel(operation, dtype, 0, row_dim, kernel).code == LATTN_OK) return ok();
    return error(LATTN_NOT_SUPPORTED, "the Hopper kernel takes bfloat16 and float16, not %s", dtype_name(dtype));
}

Status check_segmented_scan(const Device& device, const ScanCall& call, int& kernel) {
    const lattn_problem& problem = call.problem;
    LATTN_RETURN_IF_ERROR(
        find_segmented_scan(device, Operation::kSegmentedScan, problem.dtype, call.row_dim(), kernel));
    LATTN_RETURN_IF_ERROR(check_scan_tensors(call));
    const Plan sizes = sizes_of(call, kernel_at(kernel).row_dim);
    const int64_t parts = sizes.sequences * sizes.segments * sizes.row_parts;
    if (parts > INT_MAX)
        return error(LATTN_NOT_SUPPORTED, "the Hopper kernel takes at most %d parts of work, not %lld", INT_MAX,
                     static_cast<long long>(parts));
    return ok();
}

Status check_scan_tensors(const ScanCall& call) {
    const lattn_problem& problem = call.problem;
    if (problem.tokens == 0 || problem.batch == 0)
        return error(LATTN_NOT_SUPPORTED, "the Hopper kernel takes no empty problem");
    LATTN_RETURN_IF_ERROR(check_scale(call));
    for (const BoxedView* tensor : {&call.a, &call.b, &call.c}) LATTN_RETURN_IF_ERROR(check_boxed(problem, *tensor));
    return written_by(call) == kElementOut ? check_boxed(problem, call.out) : ok();
}

int64_t segmented_scan_value_slices(const ScanCall& call) {
    return ceil_div(call.value_dim(), kValueCols);
}

uint32_t ctas_side_by_side(const Device& device, const ScanCall& call, bool split, int64_t blocks) {
    constexpr uint32_t kSlices = 2;    // of a head, one after the other in the grid
    constexpr int64_t kOneIdleOf = 32; // multiprocessors; where more are, it was not measured, or is slow
    const bool fills = kOneIdleOf * (device.multiprocessors() - blocks) <= device.multiprocessors();
    const bool pairs = segmented_scan_value_slices(call) % kSlices == 0 && blocks % kSlices == 0;
    return fills && pairs && !split ? kSlices : 1;
}

uint64_t segmented_scan_workspace_bytes(const Device& device, const ScanCall& call, int kernel) {
    return make_plan(device, call, kernel_at(kernel).row_dim).workspace_bytes();
}

Status make_call_params(const Device& device, const ScanCall& call, SegmentedScanParams& scan) {
    const lattn_problem& problem = call.problem;
    const auto encode = [&](const BoxedView& tensor, uint32_t tokens, BoxedTensor& boxed) {
        return encode_boxed(device.driver(), problem, tensor, tokens, boxed);
    };
    LATTN_RETURN_IF_ERROR(encode(call.a, kChunk, scan.a));
    LATTN_RETURN_IF_ERROR(encode(call.b, kChunk, scan.b));
    LATTN_RETURN_IF_ERROR(encode(call.c, kChunk, scan.c));
    scan.written = written_by(call);
    if (scan.written == kElementOut) LATTN_RETURN_IF_ERROR(encode(call.out, kOutputRows, scan.out));
    if (scan.written == kFloatOut) scan.float_out = static_cast<float*>(call.out.view.data);
    scan.decay_rate = static_cast<const float*>(call.decay_rate);
    scan.tokens = problem.tokens;
    scan.backwards = call.backwards;
    scan.batch = static_cast<int32_t>(stored_batch(problem));
    scan.heads = static_cast<int32_t>(problem.heads_v);
    scan.row_dim = static_cast<int32_t>(call.row_dim());
    scan.value_dim = static_cast<int32_t>(call.value_dim());
    scan.value_slices = static_cast<int32_t>(segmented_scan_value_slices(call));
    scan.scale = static_cast<float>(problem.scale);
    scan.state_scale = call.backwards ? scan.scale : 1.0f;
    scan.inverse_state_scale = 1.0f / scan.state_scale;
    return ok();
}

namespace {

Status make_params(const Device& device, const ScanCall& call, const Plan& plan, SegmentedScanParams& scan) {
    LATTN_RETURN_IF_ERROR(make_call_params(device, call, scan));
    scan.initial = kept_state(call.initial);
    scan.final = kept_state(call.final);
    scan.block_states = call.block_states;
    scan.block_grads = call.block_grads;
    scan.workspace = static_cast<float*>(call.workspace);
    scan.state_entries = static_cast<int32_t>(plan.state_entries);
    scan.row_parts = static_cast<int32_t>(plan.row_parts);
    scan.split = plan.split();
    scan.combined = plan.combined;
    scan.summed_segments = static_cast<int32_t>(plan.summed_segments());
    scan.segments_per_job = static_cast<int32_t>(plan.segments_per_job);
    scan.first_job_lacks = static_cast<int32_t>(plan.first_job_lacks);
    scan.segments = static_cast<int32_t>(plan.segments);
    scan.block_size = call.problem.block_size;
    set_chunks(call, plan, scan);
    return ok();
}

// The kernels of some independent scans, pass by pass. Each starts during the one before it on the stream, and waits
// itself for what it needs: the first for the call's inputs, combining kernels and the first scan after them for all
// passes before.
class Launches {
public:
    Launches(Device& device, const std::vector<ScanCall>& calls)
        : device_(device),
          stream_(calls.front().stream),
          backwards_(std::count_if(calls.begin(), calls.end(), [](const ScanCall& call) { return call.backwards; })) {}

    Status sums(const ScanCall& call, const Plan& plan, SegmentedScanParams& scan) {
        if (!plan.split()) return ok();
        scan.overlaps = started_;
        return launch(Operation::kSegmentSums, plan.sum_rows, call, scan, plan.sums(plan.sum_rows));
    }

    Status combine(const ScanCall& call, const Plan& plan, SegmentedScanParams& scan) {
        if (!plan.combined) return ok();
        return launch(Operation::kCombineSegments, call.row_dim(), call, scan,
                      plan.sequences * (plan.state_floats / kCombineThreads));
    }

    // The backwards scans share the GPU and walk side by side, so that what they both read comes from L2 once.
    Status scan(const ScanCall& call, const Plan& plan, SegmentedScanParams& scan) {
        const int64_t side_by_side = call.backwards ? backwards_ : 1;
        scan.b_and_c_recur = plan.split() || side_by_side > 1;
        scan.overlaps = plan.split() ? waited_for_sums_ : started_;
        waited_for_sums_ |= plan.split();
        const int64_t sharing = plan.first_job_lacks > 0 ? call.scans_at_once : side_by_side;
        const int64_t blocks = std::clamp<int64_t>(device_.multiprocessors() / sharing, 1, plan.jobs());
        return launch(Operation::kSegmentedScan, call.row_dim(), call, scan, blocks,
                      ctas_side_by_side(device_, call, plan.split(), blocks));
    }

private:
    Status launch(Operation operation, int64_t row_dim, const ScanCall& call, const SegmentedScanParams& scan,
                  int64_t blocks, uint32_t cluster_blocks = 1) {
        started_ = true;
        int kernel = 0;
        LATTN_RETURN_IF_ERROR(find_kernel(operation, call.problem.dtype, 0, row_dim, kernel));
        return device_.launch(kernel, blocks, stream_, scan, Start::kDuringPrior, cluster_blocks);
    }

    Device& device_;
    CUstream stream_;
    int64_t backwards_; // scans
    bool started_ = false;
    bool waited_for_sums_ = false;
};

} // namespace

Status launch_segmented_scans(Device& device, const std::vector<ScanCall>& calls, const std::vector<int>& kernels) {
    if (calls.empty()) return ok();
    const Device::CurrentContext current(device); // for the tensor maps
    LATTN_RETURN_IF_ERROR(current.status("the segmented scan"));
    std::vector<Plan> plans;
    std::vector<SegmentedScanParams> params(calls.size());
    for (std::size_t i = 0; i < calls.size(); ++i) {
        plans.push_back(make_plan(device, calls[i], kernel_at(kernels[i]).row_dim));
        LATTN_RETURN_IF_ERROR(
            check_workspace(calls[i].workspace, calls[i].workspace_bytes, plans[i].workspace_bytes()));
        LATTN_RETURN_IF_ERROR(make_params(device, calls[i], plans[i], params[i]));
        params[i].followed = i + 1 < calls.size();
    }
    Launches launches(device, calls);
    for (const auto pass : {&Launches::sums, &Launches::combine, &Launches::scan})
        for (std::size_t i = 0; i < calls.size(); ++i)
            LATTN_RETURN_IF_ERROR((launches.*pass)(calls[i], plans[i], params[i]));
    return ok();
}

} // namespace lattn::cuda
