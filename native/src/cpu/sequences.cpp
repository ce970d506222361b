#include "cpu/sequences.h"

#include <algorithm>
#include <cstring>

#include "common/dtype.h"
#include "common/problem.h"
#include "cpu/operands.h"
#include "cpu/slots.h"

namespace lattn::cpu {
namespace {

int64_t offset_at(const lattn_problem& problem, int64_t at) {
    return integer_at(problem.cu_seqlens, problem.cu_seqlens_dtype, at);
}

int64_t slot_at(const lattn_pool& pool, int64_t sequence) {
    return pool.slots == nullptr ? sequence : integer_at(pool.slots, pool.slot_dtype, sequence);
}

Status check_offsets(const lattn_problem& problem) {
    int64_t least = 0;
    for (int64_t i = 0; i <= problem.batch; ++i) {
        const int64_t offset = offset_at(problem, i);
        if (offset < least)
            return i > 0 && offset >= 0
                       ? error(LATTN_INVALID_ARGUMENT, "cu_seqlens[%lld] = %lld is less than cu_seqlens[%lld] = %lld",
                               static_cast<long long>(i), static_cast<long long>(offset), static_cast<long long>(i - 1),
                               static_cast<long long>(least))
                       : error(LATTN_INVALID_ARGUMENT, "cu_seqlens[%lld] = %lld must not be negative",
                               static_cast<long long>(i), static_cast<long long>(offset));
        if (offset > problem.tokens)
            return error(LATTN_INVALID_ARGUMENT, "cu_seqlens[%lld] = %lld must be at most tokens = %lld",
                         static_cast<long long>(i), static_cast<long long>(offset),
                         static_cast<long long>(problem.tokens));
        least = offset;
    }
    return ok();
}

Status check_slots(const lattn_pool& pool, int64_t sequences) {
    std::vector<std::pair<int64_t, int64_t>> used; // slot, sequence
    for (int64_t i = 0; i < sequences; ++i) {
        const int64_t slot = slot_at(pool, i);
        if (slot == kPadding) continue;
        if (slot < 0 || slot >= pool.slot_count)
            return error(LATTN_INVALID_ARGUMENT,
                         "pool.slots[%lld] = %lld must be -1 (padding) or less than pool.slot_count = %lld",
                         static_cast<long long>(i), static_cast<long long>(slot),
                         static_cast<long long>(pool.slot_count));
        used.emplace_back(slot, i);
    }
    std::sort(used.begin(), used.end());
    const auto same =
        std::adjacent_find(used.begin(), used.end(), [](const auto& a, const auto& b) { return a.first == b.first; });
    if (same == used.end()) return ok();
    return error(LATTN_INVALID_ARGUMENT, "pool.slots[%lld] and pool.slots[%lld] are both %lld: each needs its own slot",
                 static_cast<long long>(same->second), static_cast<long long>((same + 1)->second),
                 static_cast<long long>(same->first));
}

} // namespace

Status sequences_of(const lattn_problem& problem, const lattn_pool& pool, std::vector<Sequence>& sequences) {
    if (!is_packed(problem)) {
        for (int64_t i = 0; i < problem.batch; ++i) sequences.push_back({i, i, 0, problem.tokens, kPadding, false});
        return ok();
    }
    const bool has_pool = pool.states.data != nullptr;
    LATTN_RETURN_IF_ERROR(check_offsets(problem));
    if (has_pool) LATTN_RETURN_IF_ERROR(check_slots(pool, problem.batch));
    for (int64_t i = 0; i < problem.batch; ++i) {
        const int64_t first = offset_at(problem, i);
        Sequence sequence{i, 0, first, offset_at(problem, i + 1) - first, kPadding, true};
        if (has_pool) {
            sequence.slot = slot_at(pool, i);
            if (sequence.slot == kPadding) continue;
            sequence.starts_from_zeros = pool.has_initial != nullptr && pool.has_initial[i] == 0;
        }
        if (sequence.tokens > 0 || (has_pool && sequence.starts_from_zeros)) sequences.push_back(sequence);
    }
    std::stable_sort(sequences.begin(), sequences.end(),
                     [](const Sequence& a, const Sequence& b) { return a.tokens > b.tokens; });
    return ok();
}

int64_t long_sequences(const std::vector<Sequence>& sequences) {
    return std::count_if(sequences.begin(), sequences.end(),
                         [&](const Sequence& sequence) { return 2 * sequence.tokens >= sequences.front().tokens; });
}

void clear_padding(const lattn_problem& problem, const std::vector<Sequence>& sequences, const lattn_view& view,
                   int64_t heads, int64_t columns) {
    if (!is_packed(problem) || view.data == nullptr) return;
    std::vector<bool> padding(static_cast<std::size_t>(problem.tokens), true);
    for (const Sequence& sequence : sequences) std::fill_n(padding.begin() + sequence.first, sequence.tokens, false);
    const std::size_t row_bytes = static_cast<std::size_t>(columns) * dtype_bytes(problem.dtype);
    for (int64_t token = 0; token < problem.tokens; ++token) {
        if (!padding[static_cast<std::size_t>(token)]) continue;
        for (int64_t head = 0; head < heads; ++head)
            std::memset(offset(view.data, head * view.stride_h + token * view.stride_n, problem.dtype), 0, row_bytes);
    }
}

} // namespace lattn::cpu
