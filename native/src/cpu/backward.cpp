// Every gradient is the scan of scan.h with its operands permuted (docs/architecture.md):
//
//     dq = scan(do, v, k)           forwards, carries S^T; ds is the tangent of this scan, contracted with q
//     dk = scan(v, do, q)           reverse, carries A^T
//     dv = scan(k, q, do)           reverse, carries A, which ends as the gradient of the history
//
// The scans are independent of each other. dq and dk are sums over the value heads of a group: one scan with a member
// for each of them.
#include <new>
#include <vector>

#include "cpu/cpu.h"
#include "cpu/operands.h"
#include "cpu/runner.h"
#include "cpu/sequences.h"

namespace lattn::cpu {
namespace {

class Backward {
public:
    explicit Backward(const lattn_backward_params& params)
        : params_(params),
          p_(params.problem),
          state_type_(state_dtype_of(p_.dtype)),
          group_(p_.heads_v / p_.heads_qk) {}

    Status run() {
        LATTN_RETURN_IF_ERROR(sequences_of(p_, lattn_pool{}, sequences_));
        const int64_t sequences = long_sequences(sequences_);
        const bool wants_decay = params_.grad_decay_rate != nullptr;
        const std::vector<Slice> key_slices =
            wants_decay ? fixed_slices(p_.head_dim_qk) : slices_for(p_.head_dim_qk, sequences * p_.heads_qk);
        // Reserved, because the scans point into it.
        decay_terms_.resize(wants_decay ? key_slices.size() * static_cast<std::size_t>(p_.batch * p_.heads_v) : 0);
        if (params_.grad_q.data != nullptr || wants_decay) add_group_scans(&Backward::grad_q_scan, key_slices);
        if (params_.grad_k.data != nullptr)
            add_group_scans(&Backward::grad_k_scan, slices_for(p_.head_dim_qk, sequences * p_.heads_qk));
        if (params_.grad_v.data != nullptr || params_.grad_history.data != nullptr) {
            const std::vector<Slice> slices = slices_for(p_.head_dim_v, sequences * p_.heads_v);
            for (const Sequence& sequence : sequences_)
                for (int64_t head = 0; head < p_.heads_v; ++head)
                    for (const Slice& slice : slices) scans_.push_back(grad_v_scan(sequence, head, slice));
        }
        clear_padding(p_, sequences_, params_.grad_q, p_.heads_qk, p_.head_dim_qk);
        clear_padding(p_, sequences_, params_.grad_k, p_.heads_qk, p_.head_dim_qk);
        clear_padding(p_, sequences_, params_.grad_v, p_.heads_v, p_.head_dim_v);
        LATTN_RETURN_IF_ERROR(cpu::run(scans_, p_.dtype));
        if (wants_decay) sum_decay_terms(key_slices.size());
        return ok();
    }

private:
    using GroupScan = Scan (Backward::*)(const Sequence& sequence, int64_t head_qk, Slice slice) const;

    void add_group_scans(GroupScan scan_of, const std::vector<Slice>& slices) {
        int64_t slice_index = 0;
        for (const Slice& slice : slices) {
            for (const Sequence& sequence : sequences_) {
                for (int64_t head = 0; head < p_.heads_qk; ++head) {
                    scans_.push_back((this->*scan_of)(sequence, head, slice));
                    if (scan_of == &Backward::grad_q_scan && params_.grad_decay_rate != nullptr)
                        scans_.back().grad_decay_rate = decay_term(slice_index, sequence.index, head * group_);
                }
            }
            ++slice_index;
        }
    }

    Scan grad_q_scan(const Sequence& sequence, int64_t head_qk, Slice slice) const {
        const int64_t head = head_qk * group_;
        Scan scan = common_scan(sequence, head);
        scan.rows = p_.head_dim_v;
        scan.columns = slice.count;
        scan.members = group_;
        scan.intra_scale = p_.scale;
        scan.state_scale = p_.scale;
        scan.x = value_rows(params_.grad_output, sequence, head, 0);
        scan.y = value_rows(params_.v, sequence, head, 0);
        scan.z = key_rows(params_.k, sequence, head_qk, slice.begin);
        scan.partner = key_rows(params_.q, sequence, head_qk, slice.begin);
        set_output(scan, params_.grad_q, sequence, head_qk, slice);
        constexpr StateLayout layout = StateLayout::kValueByKey;
        scan.initial = states_of(params_.history, sequence.index, head, layout, slice.begin, state_type_);
        set_grad_states(scan, sequence.index, head, layout, slice);
        return scan;
    }

    Scan grad_k_scan(const Sequence& sequence, int64_t head_qk, Slice slice) const {
        const int64_t head = head_qk * group_;
        Scan scan = reverse_scan(sequence, head);
        scan.rows = p_.head_dim_v;
        scan.columns = slice.count;
        scan.members = group_;
        scan.x = value_rows(params_.v, sequence, head, 0);
        scan.y = value_rows(params_.grad_output, sequence, head, 0);
        scan.z = key_rows(params_.q, sequence, head_qk, slice.begin);
        set_output(scan, params_.grad_k, sequence, head_qk, slice);
        set_grad_states(scan, sequence.index, head, StateLayout::kValueByKey, slice);
        scan.initial = scan.grad_final;
        return scan;
    }

    Scan grad_v_scan(const Sequence& sequence, int64_t head, Slice slice) const {
        Scan scan = reverse_scan(sequence, head);
        scan.rows = p_.head_dim_qk;
        scan.columns = slice.count;
        scan.x = key_rows(params_.k, sequence, head / group_, 0);
        scan.y = key_rows(params_.q, sequence, head / group_, 0);
        scan.z = value_rows(params_.grad_output, sequence, head, slice.begin);
        set_output(scan, params_.grad_v, sequence, head, slice);
        constexpr StateLayout layout = StateLayout::kKeyByValue;
        set_grad_states(scan, sequence.index, head, layout, slice);
        scan.initial = scan.grad_final;
        scan.final_state = states_of(params_.grad_history, sequence.index, head, layout, slice.begin, state_type_);
        return scan;
    }

    Scan common_scan(const Sequence& sequence, int64_t head) const {
        Scan scan;
        scan.tokens = sequence.tokens;
        scan.block_size = p_.block_size;
        scan.decay_rate = offset(params_.decay_rate, head, state_type_);
        return scan;
    }

    // The adjoint state carries the scale, so that the gradient of the states enters it as it is.
    Scan reverse_scan(const Sequence& sequence, int64_t head) const {
        Scan scan = common_scan(sequence, head);
        scan.reverse = true;
        scan.intra_scale = p_.scale;
        scan.update_scale = p_.scale;
        return scan;
    }

    Rows key_rows(const lattn_view& view, const Sequence& sequence, int64_t head_qk, int64_t column) const {
        return rows_of(view, sequence, head_qk, 0, column, p_.dtype);
    }

    Rows value_rows(const lattn_view& view, const Sequence& sequence, int64_t head, int64_t column) const {
        return rows_of(view, sequence, head, view.stride_h, column, p_.dtype);
    }

    void set_output(Scan& scan, const lattn_view& view, const Sequence& sequence, int64_t head, Slice slice) const {
        scan.output = row_data(view, sequence, head, slice.begin, p_.dtype);
        scan.output_stride_token = view.stride_n;
    }

    void set_grad_states(Scan& scan, int64_t batch, int64_t head, StateLayout layout, Slice slice) const {
        const lattn_states_view& view = params_.grad_states;
        if (has_block_states(p_)) scan.grad_blocks = states_of(view, batch, head, 0, layout, slice.begin, state_type_);
        scan.grad_final = states_of(view, batch, head, p_.state_count - 1, layout, slice.begin, state_type_);
    }

    double* decay_term(int64_t slice, int64_t batch, int64_t head) {
        return decay_terms_.data() + (slice * p_.batch + batch) * p_.heads_v + head;
    }

    void sum_decay_terms(std::size_t slices) {
        for (int64_t head = 0; head < p_.heads_v; ++head) {
            double sum = 0;
            for (int64_t batch = 0; batch < p_.batch; ++batch)
                for (std::size_t slice = 0; slice < slices; ++slice)
                    sum += *decay_term(static_cast<int64_t>(slice), batch, head);
            if (state_type_ == LATTN_FLOAT64)
                static_cast<double*>(params_.grad_decay_rate)[head] = sum;
            else
                static_cast<float*>(params_.grad_decay_rate)[head] = static_cast<float>(sum);
        }
    }

    const lattn_backward_params& params_;
    const lattn_problem& p_;
    lattn_dtype state_type_;
    int64_t group_;
    std::vector<Sequence> sequences_;
    std::vector<Scan> scans_;
    std::vector<double> decay_terms_; // [slices, B, Hv]
};

} // namespace

Status backward(const lattn_backward_params& params) try {
    return Backward(params).run();
} catch (const std::bad_alloc&) {
    return out_of_memory();
}

} // namespace lattn::cpu
