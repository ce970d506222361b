#include <algorithm>
#include <new>

#include "common/dtype.h"
#include "cpu/cpu.h"
#include "cpu/kernels.h"
#include "cpu/operands.h"
#include "cpu/parallel.h"
#include "cpu/runner.h"
#include "cpu/slots.h"

namespace lattn::cpu {
namespace {

int64_t slot_of(const lattn_decode_params& params, int64_t row) {
    return params.slots == nullptr ? row : integer_at(params.slots, params.slot_dtype, row);
}

int64_t accepted_of(const lattn_decode_params& params, int64_t row) {
    return params.accepted == nullptr ? params.tokens : integer_at(params.accepted, params.accepted_dtype, row);
}

Status check_rows(const lattn_decode_params& params) {
    for (int64_t row = 0; row < params.batch; ++row) {
        const int64_t slot = slot_of(params, row);
        if (slot != kPadding && (slot < 0 || slot >= params.slot_count))
            return error(
                LATTN_INVALID_ARGUMENT, "slots[%lld] = %lld must be -1 (padding) or less than slot_count = %lld",
                static_cast<long long>(row), static_cast<long long>(slot), static_cast<long long>(params.slot_count));
        const int64_t accepted = accepted_of(params, row);
        if (accepted < 0 || accepted > params.tokens)
            return error(LATTN_INVALID_ARGUMENT, "accepted[%lld] = %lld must be from 0 to tokens = %d",
                         static_cast<long long>(row), static_cast<long long>(accepted), params.tokens);
    }
    return ok();
}

// Whether the state goes from memory to memory, one token on. Otherwise a copy of it takes all tokens, in the
// arithmetic type, and is rounded once.
bool is_step(const lattn_decode_params& params) {
    return params.tokens == 1 && params.accepted == nullptr && params.state_out.data != nullptr;
}

// One thread's operands in the arithmetic type: a token's q, k, v and output, and the copy of a state.
struct Operands {
    void* q;
    void* k;
    void* v;
    void* output;
    void* state;

    static std::size_t bytes(const lattn_decode_params& params, lattn_dtype type) {
        const int64_t state = is_step(params) ? 0 : params.head_dim_qk * params.head_dim_v;
        return static_cast<std::size_t>(2 * (params.head_dim_qk + params.head_dim_v) + state) * dtype_bytes(type);
    }

    Operands(const lattn_decode_params& params, lattn_dtype type, void* scratch)
        : q(scratch),
          k(offset(q, params.head_dim_qk, type)),
          v(offset(k, params.head_dim_qk, type)),
          output(offset(v, params.head_dim_v, type)),
          state(offset(output, params.head_dim_v, type)) {}
};

class RowHead {
public:
    RowHead(const lattn_decode_params& params, int64_t row, int64_t head, void* scratch)
        : params_(params),
          row_(row),
          head_(head),
          slot_(slot_of(params, row)),
          arithmetic_(state_dtype_of(params.dtype)),
          operands_(params, arithmetic_, scratch) {}

    void run() const {
        const int64_t tokens = slot_ == kPadding ? 0 : accepted_of(params_, row_);
        if (slot_ != kPadding && is_step(params_)) {
            advance(0, params_.state_dtype, pool(params_.state_in), pool(params_.state_out));
        } else if (slot_ != kPadding) {
            const States copy = states_of(lattn_state_view{operands_.state, 0, 0, params_.head_dim_v, 1}, 0, 0, kLayout,
                                          0, arithmetic_);
            for_each_row(pool(params_.state_in), &TypeKernels::load, copy);
            for (int64_t token = 0; token < tokens; ++token) advance(token, arithmetic_, copy, copy);
            if (params_.state_out.data != nullptr) for_each_row(pool(params_.state_out), &TypeKernels::store, copy);
        }
        if (params_.output.data == nullptr) return;
        clear(operands_.output, params_.head_dim_v);
        for (int64_t token = tokens; token < params_.tokens; ++token) store_output(token);
    }

private:
    static constexpr StateLayout kLayout = StateLayout::kKeyByValue;

    States pool(const lattn_state_view& view) const {
        return states_of(view, slot_, head_, kLayout, 0, params_.state_dtype);
    }

    void clear(void* data, int64_t count) const {
        std::fill_n(static_cast<unsigned char*>(data), static_cast<std::size_t>(count) * dtype_bytes(arithmetic_),
                    static_cast<unsigned char>(0));
    }

    void load(void* to, const lattn_view& view, int64_t head, int64_t token, int64_t count) const {
        kernels_for(params_.dtype).load(to, row_data(view, row_, head, token * view.stride_n, params_.dtype), count);
    }

    void store_output(int64_t token) const {
        const int64_t offset = token * params_.output.stride_n;
        kernels_for(params_.dtype)
            .store(row_data(params_.output, row_, head_, offset, params_.dtype), operands_.output, params_.head_dim_v);
    }

    // One token, from a state to another or in place.
    void advance(int64_t token, lattn_dtype state_dtype, const States& in, const States& out) const {
        const int64_t head_qk = head_ / (params_.heads_v / params_.heads_qk);
        if (params_.output.data != nullptr)
            load(operands_.q, params_.q, head_qk, token, params_.head_dim_qk);
        else
            clear(operands_.q, params_.head_dim_qk);
        load(operands_.k, params_.k, head_qk, token, params_.head_dim_qk);
        load(operands_.v, params_.v, head_, token, params_.head_dim_v);
        DecodeHead description = {};
        description.rows = params_.head_dim_qk;
        description.columns = params_.head_dim_v;
        description.q = operands_.q;
        description.k = operands_.k;
        description.v = operands_.v;
        description.output = operands_.output;
        description.scale = params_.scale;
        description.decay_rate = offset(params_.decay_rate, head_, arithmetic_);
        description.state_in = in.data;
        description.in_stride_row = in.stride_row;
        description.in_stride_column = in.stride_column;
        description.state_out = out.data;
        description.out_stride_row = out.stride_row;
        description.out_stride_column = out.stride_column;
        kernels_for(state_dtype).decode_head(description);
        if (params_.output.data != nullptr) store_output(token);
    }

    // Between a state of the pool and its copy.
    void for_each_row(const States& state, void (*TypeKernels::*convert)(void*, const void*, int64_t),
                      const States& copy) const {
        const bool loads = convert == &TypeKernels::load;
        const auto kernel = kernels_for(params_.state_dtype).*convert;
        const bool contiguous = state.stride_column == 1;
        for (int64_t d = 0; d < params_.head_dim_qk; ++d)
            for (int64_t e = 0; e < params_.head_dim_v; e += contiguous ? params_.head_dim_v : 1) {
                void* in_pool = offset(state.data, d * state.stride_row + e * state.stride_column, params_.state_dtype);
                void* in_copy = offset(copy.data, d * copy.stride_row + e, arithmetic_);
                kernel(loads ? in_copy : in_pool, loads ? in_pool : in_copy, contiguous ? params_.head_dim_v : 1);
            }
    }

    const lattn_decode_params& params_;
    int64_t row_;
    int64_t head_;
    int64_t slot_;
    lattn_dtype arithmetic_;
    Operands operands_;
};

} // namespace

Status decode(const lattn_decode_params& params) try {
    LATTN_RETURN_IF_ERROR(check_rows(params));
    const int64_t tasks = params.batch * params.heads_v;
    const double work = 2.0 * static_cast<double>(tasks * params.tokens) * static_cast<double>(params.head_dim_qk) *
                        static_cast<double>(params.head_dim_v);
    const int threads = threads_for(tasks, work);
    const Scratch scratch(Operands::bytes(params, state_dtype_of(params.dtype)), threads);
    if (!scratch) return out_of_memory();
    parallel_for(tasks, threads, [&](int64_t task, int thread) {
        RowHead(params, task / params.heads_v, task % params.heads_v, scratch.of(thread)).run();
    });
    return ok();
} catch (const std::bad_alloc&) {
    return out_of_memory();
}

} // namespace lattn::cpu
