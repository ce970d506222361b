// The chunked scan of scan.h for one instruction set.
//
// Per chunk and member: pack x, y, z and y^T; scores p_ij = w(i-j) (x_i . y_j) for j <= i; outputs, where one register
// tile takes S^T x, its decay and the causal product with z; then the state.
#include "cpu/isa/kernels.h"
#include "cpu/isa/products.h"
#include "cpu/isa/states.h"

namespace lattn::cpu::LATTN_CPU_ISA {
namespace {

template <typename T>
void start_member(const Scan& scan, const Member<T>& member, int64_t index) {
    const T rate = static_cast<const T*>(scan.decay_rate)[index];
    for (int64_t n = 0; n <= kChunk; ++n) member.decay[n] = exponential(-rate * static_cast<T>(n));
    for (int64_t t = 0; t < 2 * kChunk; ++t)
        member.score_weights[t] = t < kChunk ? static_cast<T>(scan.intra_scale) * member.decay[kChunk - 1 - t] : T(0);
    clear_state(member.state, scan);
    if (scan.initial.data != nullptr) read_state(member.state, scan.initial, index, 0, scan);
    if (scan.grad_decay_rate != nullptr) {
        clear_state(member.tangent, scan);
        scan.grad_decay_rate[index] = 0;
    }
}

template <typename T>
void advance_state(const Scan& scan, const Chunk<T>& chunk, const Member<T>& member) {
    const int64_t m = chunk.tokens;
    const int64_t shift = scan.reverse ? 0 : 1;
    T weights[kChunk];
    if (scan.grad_decay_rate != nullptr) {
        for (int64_t j = 0; j < m; ++j)
            weights[j] = static_cast<T>(-scan.update_scale * static_cast<double>(m - 1 - j)) * member.decay[m - 1 - j];
        weigh_rows(chunk.z_weighted, chunk.z, weights, m, scan.columns);
        update(member.tangent, member.decay[m], member.state, static_cast<T>(-m) * member.decay[m], chunk, scan.rows,
               scan.columns);
    }
    for (int64_t j = 0; j < m; ++j) weights[j] = static_cast<T>(scan.update_scale) * member.decay[m - j - shift];
    weigh_rows(chunk.z_weighted, chunk.z, weights, m, scan.columns);
    update(member.state, member.decay[m], Matrix<T>{}, T(0), chunk, scan.rows, scan.columns);
}

template <typename Element, typename T>
void scan_chunk(const Scan& scan, Chunk<T>& chunk, const Member<T>& member, int64_t index, const Window& window) {
    const int64_t m = chunk.tokens;
    const bool tangent = scan.grad_decay_rate != nullptr;
    pack<Element>(chunk.y, scan.y, index, window, scan.rows);
    // An operand that the group shares stays as the first member packed it.
    if (index == 0 || scan.z.stride_member != 0) pack<Element>(chunk.z, scan.z, index, window, scan.columns);
    if (scan.output != nullptr || tangent) {
        pack<Element>(chunk.x, scan.x, index, window, scan.rows);
        transpose(chunk.y_transposed, chunk.y, m, scan.rows);
        causal_scores(chunk.scores, chunk.x, chunk.y_transposed, member.score_weights, m, scan.rows);
        T state_weights[kChunk];
        for (int64_t i = 0; i < m; ++i)
            state_weights[i] = static_cast<T>(scan.state_scale) * member.decay[i + (scan.reverse ? 0 : 1)];
        if (scan.output != nullptr) outputs(chunk, member.state, state_weights, scan.rows, scan.columns);
        if (tangent) {
            pack<Element>(chunk.partner, scan.partner, index, window, scan.columns);
            transpose(chunk.z_transposed, chunk.z, m, scan.columns);
            scan.grad_decay_rate[index] += intra_tangent_term(chunk, scan.columns);
            if (!chunk.state_is_zero)
                scan.grad_decay_rate[index] +=
                    state_tangent_term(chunk, member, state_weights, scan.rows, scan.columns);
        }
    }
    advance_state(scan, chunk, member);
}

// What happens to the state before token `first` of a forward scan, or after a reverse scan is done with it.
template <typename T>
void at_block_start(const Scan& scan, const Member<T>& member, int64_t index, int64_t block) {
    if (scan.block_states.data != nullptr) write_state(member.state, scan.block_states, index, block, scan);
    if (scan.grad_blocks.data == nullptr) return;
    if (scan.reverse)
        add_to_state(member.state, scan.grad_blocks, index, block, scan);
    else if (scan.grad_decay_rate != nullptr && block > 0)
        scan.grad_decay_rate[index] += inner_product(member.tangent, scan.grad_blocks, index, block, scan);
}

template <typename Element>
void write_output(const Scan& scan, Matrix<Arithmetic<Element>> output, const Window& window) {
    Element* destination = static_cast<Element*>(scan.output) + window.first * scan.output_stride_token;
    const int64_t stride = window.step * scan.output_stride_token;
    for (int64_t i = 0; i < window.tokens; ++i) narrow_row(destination + i * stride, output.row(i), scan.columns);
}

template <typename Element>
void scan_sequence(const Scan& scan, void* scratch) {
    using T = Arithmetic<Element>;
    const ScanLayout layout = layout_of(scan, sizeof(T));
    T* base = static_cast<T*>(scratch);
    Chunk<T> chunk = chunk_of(layout, base);
    for (int64_t index = 0; index < scan.members; ++index) start_member(scan, member_of(layout, base, index), index);

    const int64_t chunks = (scan.tokens + kChunk - 1) / kChunk;
    for (int64_t taken = 0; taken < chunks; ++taken) {
        const int64_t start = (scan.reverse ? chunks - 1 - taken : taken) * kChunk;
        const int64_t end = scan.tokens - start < kChunk ? scan.tokens : start + kChunk;
        const Window window =
            scan.reverse ? Window{end - 1, -1, end - start, start} : Window{start, 1, end - start, scan.tokens - end};
        const bool block_starts = start % scan.block_size == 0;
        chunk.tokens = window.tokens;
        chunk.state_is_zero = taken == 0 && scan.initial.data == nullptr;
        for (int64_t index = 0; index < scan.members; ++index) {
            const Member<T> member = member_of(layout, base, index);
            chunk.accumulate = index > 0;
            if (block_starts && !scan.reverse) at_block_start(scan, member, index, start / scan.block_size);
            scan_chunk<Element>(scan, chunk, member, index, window);
            if (block_starts && scan.reverse) at_block_start(scan, member, index, start / scan.block_size);
        }
        if (scan.output != nullptr) write_output<Element>(scan, chunk.output, window);
    }

    for (int64_t index = 0; index < scan.members; ++index) {
        const Member<T> member = member_of(layout, base, index);
        if (scan.final_state.data != nullptr) write_state(member.state, scan.final_state, index, 0, scan);
        if (scan.grad_decay_rate != nullptr && scan.grad_final.data != nullptr)
            scan.grad_decay_rate[index] += inner_product(member.tangent, scan.grad_final, index, 0, scan);
    }
}

} // namespace

template <typename Element>
void scan(const Scan& description, void* scratch) {
    scan_sequence<Element>(description, scratch);
}

template void scan<Float16>(const Scan&, void*);
template void scan<BFloat16>(const Scan&, void*);
template void scan<float>(const Scan&, void*);
template void scan<double>(const Scan&, void*);

} // namespace lattn::cpu::LATTN_CPU_ISA
