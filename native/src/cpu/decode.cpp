#include <algorithm>
#include <new>

#include "common/dtype.h"
#include "cpu/cpu.h"
#include "cpu/kernels.h"
#include "cpu/operands.h"
#include "cpu/parallel.h"
#include "cpu/runner.h"

namespace lattn::cpu {
namespace {

constexpr int64_t kPadding = -1;

int64_t slot_of(const lattn_decode_params& params, int64_t row) {
    if (params.slots == nullptr) return row;
    if (params.slot_dtype == LATTN_INT32) return static_cast<const int32_t*>(params.slots)[row];
    return static_cast<const int64_t*>(params.slots)[row];
}

Status check_slots(const lattn_decode_params& params) {
    for (int64_t row = 0; row < params.batch; ++row) {
        const int64_t slot = slot_of(params, row);
        if (slot == kPadding || (slot >= 0 && slot < params.slot_count)) continue;
        return error(LATTN_INVALID_ARGUMENT, "slots[%lld] = %lld must be -1 (padding) or less than slot_count = %lld",
                     static_cast<long long>(row), static_cast<long long>(slot),
                     static_cast<long long>(params.slot_count));
    }
    return ok();
}

// One thread's q, k, v and output in the arithmetic type.
struct Vectors {
    void* q;
    void* k;
    void* v;
    void* output;

    static std::size_t bytes(const lattn_decode_params& params, lattn_dtype type) {
        return static_cast<std::size_t>(2 * (params.head_dim_qk + params.head_dim_v)) * dtype_bytes(type);
    }

    Vectors(const lattn_decode_params& params, lattn_dtype type, void* scratch)
        : q(scratch),
          k(offset(q, params.head_dim_qk, type)),
          v(offset(k, params.head_dim_qk, type)),
          output(offset(v, params.head_dim_v, type)) {}
};

void decode_row_head(const lattn_decode_params& params, int64_t row, int64_t head, void* scratch) {
    const lattn_dtype arithmetic = state_dtype_of(params.dtype);
    const TypeKernels& kernels = kernels_for(params.dtype);
    const Vectors vectors(params, arithmetic, scratch);
    void* output = row_data(params.output, row, head, 0, params.dtype);
    const int64_t slot = slot_of(params, row);
    if (slot == kPadding) {
        std::fill_n(static_cast<unsigned char*>(vectors.output),
                    static_cast<std::size_t>(params.head_dim_v) * dtype_bytes(arithmetic),
                    static_cast<unsigned char>(0));
        kernels.store(output, vectors.output, params.head_dim_v);
        return;
    }
    const int64_t head_qk = head / (params.heads_v / params.heads_qk);
    kernels.load(vectors.q, row_data(params.q, row, head_qk, 0, params.dtype), params.head_dim_qk);
    kernels.load(vectors.k, row_data(params.k, row, head_qk, 0, params.dtype), params.head_dim_qk);
    kernels.load(vectors.v, row_data(params.v, row, head, 0, params.dtype), params.head_dim_v);

    constexpr StateLayout layout = StateLayout::kKeyByValue;
    const States in = states_of(params.state_in, slot, head, layout, 0, params.state_dtype);
    const States out = states_of(params.state_out, slot, head, layout, 0, params.state_dtype);
    DecodeHead description = {};
    description.rows = params.head_dim_qk;
    description.columns = params.head_dim_v;
    description.q = vectors.q;
    description.k = vectors.k;
    description.v = vectors.v;
    description.output = vectors.output;
    description.scale = params.scale;
    description.decay_rate = offset(params.decay_rate, head, arithmetic);
    description.state_in = in.data;
    description.in_stride_row = in.stride_row;
    description.in_stride_column = in.stride_column;
    description.state_out = out.data;
    description.out_stride_row = out.stride_row;
    description.out_stride_column = out.stride_column;
    kernels_for(params.state_dtype).decode_head(description);
    kernels.store(output, vectors.output, params.head_dim_v);
}

} // namespace

Status decode(const lattn_decode_params& params) try {
    LATTN_RETURN_IF_ERROR(check_slots(params));
    const int64_t tasks = params.batch * params.heads_v;
    const double work = 2.0 * static_cast<double>(tasks) * static_cast<double>(params.head_dim_qk) *
                        static_cast<double>(params.head_dim_v);
    const int threads = threads_for(tasks, work);
    const Scratch scratch(Vectors::bytes(params, state_dtype_of(params.dtype)), threads);
    if (!scratch) return out_of_memory();
    parallel_for(tasks, threads, [&](int64_t task, int thread) {
        decode_row_head(params, task / params.heads_v, task % params.heads_v, scratch.of(thread));
    });
    return ok();
} catch (const std::bad_alloc&) {
    return out_of_memory();
}

} // namespace lattn::cpu
