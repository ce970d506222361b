#include <new>
#include <vector>

#include "cpu/cpu.h"
#include "cpu/operands.h"
#include "cpu/runner.h"
#include "cpu/sequences.h"

namespace lattn::cpu {
namespace {

Scan forward_scan(const lattn_forward_params& params, const Sequence& sequence, int64_t head, Slice slice) {
    const lattn_problem& p = params.problem;
    const lattn_dtype state_type = state_dtype_of(p.dtype);
    const int64_t head_qk = head / (p.heads_v / p.heads_qk);
    Scan scan;
    scan.tokens = sequence.tokens;
    scan.rows = p.head_dim_qk;
    scan.columns = slice.count;
    scan.block_size = p.block_size;
    scan.intra_scale = p.scale;
    scan.state_scale = p.scale;
    scan.x = rows_of(params.q, sequence, head_qk, 0, 0, p.dtype);
    scan.y = rows_of(params.k, sequence, head_qk, 0, 0, p.dtype);
    scan.z = rows_of(params.v, sequence, head, 0, slice.begin, p.dtype);
    scan.decay_rate = offset(params.decay_rate, head, state_type);
    scan.output = row_data(params.output, sequence, head, slice.begin, p.dtype);
    scan.output_stride_token = params.output.stride_n;

    constexpr StateLayout layout = StateLayout::kKeyByValue;
    if (params.pool.states.data != nullptr) {
        const lattn_pool& pool = params.pool;
        scan.final_state = states_of(pool.states, sequence.slot, head, layout, slice.begin, pool.state_dtype);
        if (!sequence.starts_from_zeros) scan.initial = scan.final_state;
        return scan;
    }
    const int64_t batch = sequence.index;
    scan.initial = states_of(params.history, batch, head, layout, slice.begin, state_type);
    if (has_block_states(p))
        scan.block_states = states_of(params.states, batch, head, 0, layout, slice.begin, state_type);
    scan.final_state = states_of(params.states, batch, head, p.state_count - 1, layout, slice.begin, state_type);
    return scan;
}

} // namespace

Status forward(const lattn_forward_params& params) try {
    const lattn_problem& p = params.problem;
    std::vector<Sequence> sequences;
    LATTN_RETURN_IF_ERROR(sequences_of(p, params.pool, sequences));
    const std::vector<Slice> slices = slices_for(p.head_dim_v, long_sequences(sequences) * p.heads_v);
    std::vector<Scan> scans;
    for (const Sequence& sequence : sequences)
        for (int64_t head = 0; head < p.heads_v; ++head)
            for (const Slice& slice : slices) scans.push_back(forward_scan(params, sequence, head, slice));
    clear_padding(p, sequences, params.output, p.heads_v, p.head_dim_v);
    return run(scans, p.dtype);
} catch (const std::bad_alloc&) {
    return out_of_memory();
}

} // namespace lattn::cpu
