// Backward on CUDA: the scan with permuted arguments for dq, dk and dv, and the tangent scan for the decay rate.
#include <algorithm>
#include <vector>

#include "common/dtype.h"
#include "cuda/cuda.h"
#include "cuda/decay_grad/decay_grad_config.h"
#include "cuda/decay_grad/decay_grad_params.h"
#include "cuda/group_sum/group_sum_params.h"
#include "cuda/host/views.h"
#include "cuda/scan_call.h"

namespace lattn::cuda {
namespace {

constexpr uint64_t kAlignment = 256;

struct ScanWorkspace {
    uint64_t offset = 0;
    uint64_t bytes = 0;
};

// Regions of the workspace, by offset. An unused region has no bytes.
struct Workspace {
    uint64_t zero_row = 0; // one row of zeros that stands for an absent grad_output
    uint64_t zero_row_bytes = 0;
    uint64_t decay_partial = 0; // double [Hv, B, row_slices, value_slices]
    uint64_t head_partial = 0;  // float [B, Hv, N, D]: dq or dk per value head, where heads are grouped
    ScanWorkspace scan_q, scan_k, scan_v;
    uint64_t bytes = 0;

    uint64_t take(uint64_t size) {
        const uint64_t offset = bytes;
        bytes += (size + kAlignment - 1) / kAlignment * kAlignment;
        return offset;
    }
};

constexpr int64_t kDecaySlice = DecayGradConfig<2>::kSlice;

int64_t decay_partials_per_head(const lattn_problem& problem) {
    return problem.batch * ceil_div(problem.head_dim_qk, kDecaySlice) * ceil_div(problem.head_dim_v, kDecaySlice);
}

bool is_grouped(const lattn_problem& problem) {
    return problem.heads_qk != problem.heads_v;
}

Workspace plan_workspace(const lattn_backward_params& params) {
    const lattn_problem& problem = params.problem;
    Workspace plan;
    if (params.grad_output.data == nullptr) {
        plan.zero_row_bytes = kMaxHeadDim * sizeof(float);
        plan.zero_row = plan.take(plan.zero_row_bytes);
    }
    if (params.grad_decay_rate != nullptr)
        plan.decay_partial =
            plan.take(static_cast<uint64_t>(problem.heads_v * decay_partials_per_head(problem)) * sizeof(double));
    if (is_grouped(problem) && (params.grad_q.data != nullptr || params.grad_k.data != nullptr))
        plan.head_partial = plan.take(
            static_cast<uint64_t>(stored_batch(problem) * problem.heads_v * problem.tokens * problem.head_dim_qk) *
            sizeof(float));
    return plan;
}

class Backward {
public:
    Backward(const lattn_backward_params& params, Device& device)
        : params_(params),
          problem_(params.problem),
          device_(device),
          stream_(static_cast<CUstream>(params.stream)),
          plan_(plan_workspace(params)) {}

    Status plan(uint64_t& bytes) {
        LATTN_RETURN_IF_ERROR(plan_scan(wants_grad_q(), grad_q_call(), plan_.scan_q));
        LATTN_RETURN_IF_ERROR(plan_scan(wants_grad_k(), grad_k_call(), plan_.scan_k));
        LATTN_RETURN_IF_ERROR(plan_scan(wants_grad_v(), grad_v_call(), plan_.scan_v));
        bytes = plan_.bytes;
        return ok();
    }

    // After plan().
    Status run() {
        LATTN_RETURN_IF_ERROR(check_workspace(params_.workspace, params_.workspace_bytes, plan_.bytes));
        if (plan_.zero_row_bytes > 0)
            LATTN_RETURN_IF_ERROR(device_.clear(workspace<void>(plan_.zero_row), plan_.zero_row_bytes, stream_));
        LATTN_RETURN_IF_ERROR(is_grouped(problem_) ? run_grouped_scans() : run_all_scans());
        return run_grad_decay_rate();
    }

private:
    bool wants_grad_q() const { return params_.grad_q.data != nullptr; }
    bool wants_grad_k() const { return params_.grad_k.data != nullptr; }
    bool wants_grad_v() const { return params_.grad_v.data != nullptr || params_.grad_history.data != nullptr; }

    template <typename T>
    T* workspace(uint64_t offset) const {
        return reinterpret_cast<T*>(reinterpret_cast<uintptr_t>(params_.workspace) + offset);
    }

    BoxedView q() const { return {"q", params_.q, problem_.heads_qk, problem_.head_dim_qk}; }
    BoxedView k() const { return {"k", params_.k, problem_.heads_qk, problem_.head_dim_qk}; }
    BoxedView v() const { return {"v", params_.v, problem_.heads_v, problem_.head_dim_v}; }

    BoxedView grad_output() const {
        lattn_view view = params_.grad_output;
        if (view.data == nullptr) view = {workspace<void>(plan_.zero_row), 0, 0, 0};
        return {"grad_output", view, problem_.heads_v, problem_.head_dim_v};
    }

    TensorView input(const BoxedView& tensor) const { return input_view(tensor.view, problem_, tensor.heads); }

    // A gradient with the heads of q and k: of every value head in the workspace, where heads are grouped.
    BoxedView grouped(const char* name, lattn_view view) const {
        const int64_t row = problem_.head_dim_qk;
        if (is_grouped(problem_) && view.data != nullptr)
            view = {workspace<void>(plan_.head_partial), problem_.heads_v * problem_.tokens * row,
                    problem_.tokens * row, row};
        return {name, view, is_grouped(problem_) ? problem_.heads_v : problem_.heads_qk, row};
    }

    ScanCall scan_call(const BoxedView& a, const BoxedView& b, const BoxedView& c, const BoxedView& out,
                       const ScanWorkspace& region) const {
        void* const place = workspace<void>(region.offset);
        ScanCall call{problem_, a, b, c, out, params_.decay_rate, place, region.bytes, stream_};
        if (!is_grouped(problem_)) call.scans_at_once = wants_grad_q() + wants_grad_k() + wants_grad_v();
        return call;
    }

    // dq = scan(do, v, k), carrying S^T.
    ScanCall grad_q_call() const {
        ScanCall call = scan_call(grad_output(), v(), k(), grouped("grad_q", params_.grad_q), plan_.scan_q);
        call.out_is_float = is_grouped(problem_);
        call.initial = transposed(state_view(params_.history));
        return call;
    }

    StateView final_grad() const { return states_view(params_.grad_states, problem_.state_count - 1); }
    StateView block_grads() const {
        return has_block_states(problem_) ? states_view(params_.grad_states, 0) : StateView{};
    }

    // dk = scan(v, do, q) backwards, carrying A^T.
    ScanCall grad_k_call() const {
        ScanCall call = scan_call(v(), grad_output(), q(), grouped("grad_k", params_.grad_k), plan_.scan_k);
        call.backwards = true;
        call.out_is_float = is_grouped(problem_);
        call.initial = transposed(final_grad());
        call.block_grads = transposed(block_grads());
        return call;
    }

    // dv = scan(k, q, do) backwards, carrying A, whose last value is the gradient of the history.
    ScanCall grad_v_call() const {
        ScanCall call = scan_call(k(), q(), grad_output(),
                                  {"grad_v", params_.grad_v, problem_.heads_v, problem_.head_dim_v}, plan_.scan_v);
        call.backwards = true;
        call.initial = final_grad();
        call.block_grads = block_grads();
        call.final = state_view(params_.grad_history);
        return call;
    }

    Status plan_scan(bool wanted, const ScanCall& call, ScanWorkspace& region) {
        if (!wanted) return ok();
        LATTN_RETURN_IF_ERROR(scan_workspace_bytes(device_, call, region.bytes));
        region.offset = plan_.take(region.bytes);
        return ok();
    }

    Status run_all_scans() {
        std::vector<ScanCall> calls;
        if (wants_grad_q()) calls.push_back(grad_q_call());
        if (wants_grad_k()) calls.push_back(grad_k_call());
        if (wants_grad_v()) calls.push_back(grad_v_call());
        return run_scans(device_, calls);
    }

    // One after the other: dq and dk of value heads take the same place.
    Status run_grouped_scans() {
        if (wants_grad_q()) {
            LATTN_RETURN_IF_ERROR(run_scans(device_, {grad_q_call()}));
            LATTN_RETURN_IF_ERROR(sum_groups(params_.grad_q));
        }
        if (wants_grad_k()) {
            LATTN_RETURN_IF_ERROR(run_scans(device_, {grad_k_call()}));
            LATTN_RETURN_IF_ERROR(sum_groups(params_.grad_k));
        }
        return wants_grad_v() ? run_scans(device_, {grad_v_call()}) : ok();
    }

    Status sum_groups(const lattn_view& grad) {
        const int64_t row = problem_.head_dim_qk;
        GroupSumParams sum{};
        sum.partial = workspace<const float>(plan_.head_partial);
        sum.out = output_view(grad, problem_, problem_.heads_qk, static_cast<int64_t>(dtype_bytes(problem_.dtype)));
        sum.rows = stored_batch(problem_) * problem_.heads_qk * problem_.tokens;
        sum.tokens = problem_.tokens;
        sum.heads_qk = static_cast<int32_t>(problem_.heads_qk);
        sum.group = static_cast<int32_t>(problem_.heads_v / problem_.heads_qk);
        sum.dim = static_cast<int32_t>(row);
        int kernel = 0;
        LATTN_RETURN_IF_ERROR(find_kernel(Operation::kGroupSum, problem_.dtype, 0, 0, kernel));
        constexpr int64_t kMaxBlocks = 65536; // the kernel strides over the rest
        const int64_t blocks = std::min(ceil_div(sum.rows * row, int64_t{kGroupSumThreads}), kMaxBlocks);
        return device_.launch(kernel, blocks, stream_, sum);
    }

    Status run_grad_decay_rate() {
        if (params_.grad_decay_rate == nullptr) return ok();
        DecayGradParams grad{};
        grad.q = input(q());
        grad.k = input(k());
        grad.v = input(v());
        grad.grad_output = input(grad_output());
        grad.packed = packed_batch(problem_, nullptr);
        grad.decay_rate = static_cast<const float*>(params_.decay_rate);
        grad.initial = state_view(params_.history);
        grad.final_grad = final_grad();
        grad.block_grads = block_grads();
        grad.partial = workspace<double>(plan_.decay_partial);
        grad.batch = problem_.batch;
        grad.tokens = problem_.tokens;
        grad.block_size = problem_.block_size;
        grad.heads = static_cast<int32_t>(problem_.heads_v);
        grad.row_dim = static_cast<int32_t>(problem_.head_dim_qk);
        grad.value_dim = static_cast<int32_t>(problem_.head_dim_v);
        grad.row_slices = static_cast<int32_t>(ceil_div(problem_.head_dim_qk, kDecaySlice));
        grad.value_slices = static_cast<int32_t>(ceil_div(problem_.head_dim_v, kDecaySlice));
        grad.scale = static_cast<float>(problem_.scale);
        int kernel = 0;
        LATTN_RETURN_IF_ERROR(find_kernel(Operation::kDecayGrad, problem_.dtype, 0, 0, kernel));
        const int64_t per_head = decay_partials_per_head(problem_);
        LATTN_RETURN_IF_ERROR(device_.launch(kernel, problem_.heads_v * per_head, stream_, grad));

        const DecayGradReduceParams reduce{grad.partial, static_cast<float*>(params_.grad_decay_rate), per_head};
        LATTN_RETURN_IF_ERROR(find_kernel(Operation::kDecayGradReduce, 0, 0, 0, kernel));
        return device_.launch(kernel, problem_.heads_v, stream_, reduce);
    }

    const lattn_backward_params& params_;
    const lattn_problem& problem_;
    Device& device_;
    CUstream stream_;
    Workspace plan_;
};

} // namespace

Status backward_workspace_size(const lattn_backward_params& params, uint64_t& bytes) {
    Device* device = nullptr;
    LATTN_RETURN_IF_ERROR(Device::get(params.problem.device_index, device));
    return Backward(params, *device).plan(bytes);
}

Status backward(const lattn_backward_params& params) {
    LATTN_RETURN_IF_ERROR(check_head_dim("head_dim_qk", params.problem.head_dim_qk));
    LATTN_RETURN_IF_ERROR(check_head_dim("head_dim_v", params.problem.head_dim_v));
    Device* device = nullptr;
    LATTN_RETURN_IF_ERROR(Device::get(params.problem.device_index, device));
    Backward backward(params, *device);
    uint64_t bytes = 0;
    LATTN_RETURN_IF_ERROR(backward.plan(bytes));
    return backward.run();
}

} // namespace lattn::cuda
