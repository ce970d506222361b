// Backward on CUDA: the scan with permuted arguments for dq, dk and dv, and the tangent scan for the decay rate.
#include <algorithm>

#include "common/dtype.h"
#include "cuda/cuda.h"
#include "cuda/decay_grad/decay_grad_config.h"
#include "cuda/decay_grad/decay_grad_params.h"
#include "cuda/group_sum/group_sum_params.h"
#include "cuda/host/views.h"
#include "cuda/scan/scan_launch.h"

namespace lattn::cuda {
namespace {

constexpr uint64_t kAlignment = 256;

// Regions of the workspace, by offset. An unused region has no bytes.
struct Workspace {
    uint64_t zero_row = 0; // one row of zeros that stands for an absent grad_output
    uint64_t zero_row_bytes = 0;
    uint64_t decay_partial = 0; // double [Hv, B, row_slices, value_slices]
    uint64_t head_partial = 0;  // float [B, Hv, N, D]: dq or dk per value head, where heads are grouped
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
        plan.head_partial =
            plan.take(static_cast<uint64_t>(problem.batch * problem.heads_v * problem.tokens * problem.head_dim_qk) *
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

    Status run() {
        LATTN_RETURN_IF_ERROR(check_workspace(params_.workspace, params_.workspace_bytes, plan_.bytes));
        q_ = input_view(params_.q, problem_, problem_.heads_qk);
        k_ = input_view(params_.k, problem_, problem_.heads_qk);
        v_ = input_view(params_.v, problem_, problem_.heads_v);
        LATTN_RETURN_IF_ERROR(make_grad_output());
        LATTN_RETURN_IF_ERROR(run_grad_q());
        LATTN_RETURN_IF_ERROR(run_grad_k());
        LATTN_RETURN_IF_ERROR(run_grad_v());
        return run_grad_decay_rate();
    }

private:
    template <typename T>
    T* workspace(uint64_t offset) const {
        return reinterpret_cast<T*>(static_cast<char*>(params_.workspace) + offset);
    }

    Status make_grad_output() {
        if (params_.grad_output.data != nullptr) {
            grad_output_ = input_view(params_.grad_output, problem_, problem_.heads_v);
            return ok();
        }
        grad_output_ = {workspace<void>(plan_.zero_row), 0, 0, 0, 1, 1};
        return device_.clear(grad_output_.data, plan_.zero_row_bytes, stream_);
    }

    // Runs a scan whose output is the gradient of a tensor with the heads of q and k.
    Status run_grouped(ScanParams scan, const lattn_view& grad) {
        const int64_t element_bytes = static_cast<int64_t>(dtype_bytes(problem_.dtype));
        if (!is_grouped(problem_)) {
            scan.out = output_view(grad, problem_, problem_.heads_qk, element_bytes);
            return launch_scan(device_, problem_, scan, stream_);
        }
        const int64_t row = problem_.head_dim_qk;
        scan.out = {workspace<void>(plan_.head_partial),
                    problem_.heads_v * problem_.tokens * row,
                    problem_.tokens * row,
                    row,
                    1,
                    1};
        scan.out_is_float = 1;
        LATTN_RETURN_IF_ERROR(launch_scan(device_, problem_, scan, stream_));

        GroupSumParams sum{};
        sum.partial = workspace<const float>(plan_.head_partial);
        sum.out = output_view(grad, problem_, problem_.heads_qk, element_bytes);
        sum.rows = problem_.batch * problem_.heads_qk * problem_.tokens;
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

    // dq = scan(do, v, k), carrying S^T.
    Status run_grad_q() {
        if (params_.grad_q.data == nullptr) return ok();
        ScanParams scan = scan_params(problem_, params_.decay_rate);
        scan.a = grad_output_;
        scan.b = v_;
        scan.c = k_;
        scan.row_dim = static_cast<int32_t>(problem_.head_dim_v);
        scan.value_dim = static_cast<int32_t>(problem_.head_dim_qk);
        scan.initial = transposed(state_view(params_.history));
        return run_grouped(scan, params_.grad_q);
    }

    // A backward scan that starts from the gradient of the final state.
    ScanParams backward_scan() const {
        ScanParams scan = scan_params(problem_, params_.decay_rate);
        scan.backwards = 1;
        scan.shift = 0;
        scan.read_scale = 1.0f;
        scan.update_scale = static_cast<float>(problem_.scale);
        scan.initial = states_view(params_.grad_states, problem_.state_count - 1);
        if (has_block_states(problem_)) scan.block_grads = states_view(params_.grad_states, 0);
        return scan;
    }

    // dk = scan(v, do, q) backwards, carrying A^T.
    Status run_grad_k() {
        if (params_.grad_k.data == nullptr) return ok();
        ScanParams scan = backward_scan();
        scan.a = v_;
        scan.b = grad_output_;
        scan.c = q_;
        scan.row_dim = static_cast<int32_t>(problem_.head_dim_v);
        scan.value_dim = static_cast<int32_t>(problem_.head_dim_qk);
        scan.initial = transposed(scan.initial);
        scan.block_grads = transposed(scan.block_grads);
        return run_grouped(scan, params_.grad_k);
    }

    // dv = scan(k, q, do) backwards, carrying A, whose last value is the gradient of the history.
    Status run_grad_v() {
        if (params_.grad_v.data == nullptr && params_.grad_history.data == nullptr) return ok();
        ScanParams scan = backward_scan();
        scan.a = k_;
        scan.b = q_;
        scan.c = grad_output_;
        scan.row_dim = static_cast<int32_t>(problem_.head_dim_qk);
        scan.value_dim = static_cast<int32_t>(problem_.head_dim_v);
        scan.final = state_view(params_.grad_history);
        scan.out =
            output_view(params_.grad_v, problem_, problem_.heads_v, static_cast<int64_t>(dtype_bytes(problem_.dtype)));
        return launch_scan(device_, problem_, scan, stream_);
    }

    Status run_grad_decay_rate() {
        if (params_.grad_decay_rate == nullptr) return ok();
        DecayGradParams grad{};
        grad.q = q_;
        grad.k = k_;
        grad.v = v_;
        grad.grad_output = grad_output_;
        grad.decay_rate = static_cast<const float*>(params_.decay_rate);
        grad.initial = state_view(params_.history);
        grad.final_grad = states_view(params_.grad_states, problem_.state_count - 1);
        if (has_block_states(problem_)) grad.block_grads = states_view(params_.grad_states, 0);
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
    TensorView q_{}, k_{}, v_{}, grad_output_{};
};

} // namespace

Status backward_workspace_size(const lattn_backward_params& params, uint64_t& bytes) {
    bytes = plan_workspace(params).bytes;
    return ok();
}

Status backward(const lattn_backward_params& params) {
    LATTN_RETURN_IF_ERROR(check_head_dim("head_dim_qk", params.problem.head_dim_qk));
    LATTN_RETURN_IF_ERROR(check_head_dim("head_dim_v", params.problem.head_dim_v));
    Device* device = nullptr;
    LATTN_RETURN_IF_ERROR(Device::get(params.problem.device_index, device));
    return Backward(params, *device).run();
}

} // namespace lattn::cuda
