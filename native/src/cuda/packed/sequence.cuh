// Which tokens and which state belong to a sequence. Whatever is in cu_seqlens and in the slots, nothing outside the
// tensors and the pool follows from it. They are read past L1, which would keep what a scan reads of them before the
// kernel before it has ended.
#pragma once

#include "packed/packed_batch.h"

namespace lattn::cuda {

struct Sequence {
    int64_t first; // token
    int64_t tokens;
    int64_t entry; // slot of the pool, or batch entry of the states
    // Whether the sequence starts from the state there, and whether it leaves its last state there. A padding sequence
    // has no tokens and does neither.
    int32_t reads_state, writes_state;
};

__device__ __forceinline__ int64_t index_at(const void* indices, bool are_int64, int64_t at) {
    return are_int64 ? __ldcg(static_cast<const int64_t*>(indices) + at)
                     : static_cast<int64_t>(__ldcg(static_cast<const int32_t*>(indices) + at));
}

__device__ __forceinline__ int64_t offset_at(const PackedBatch& packed, int64_t at) {
    return index_at(packed.offsets, packed.offsets_are_int64, at);
}

// -1: the sequence is padding.
__device__ __forceinline__ int64_t slot_of(const PackedBatch& packed, int64_t sequence) {
    const int64_t slot = packed.slots == nullptr ? sequence : index_at(packed.slots, packed.slots_are_int64, sequence);
    return slot >= 0 && slot < packed.slot_count ? slot : -1;
}

// Sequence `index` of a batch; `tokens` is that of lattn_problem.
__device__ __forceinline__ Sequence sequence_of(const PackedBatch& packed, int64_t tokens, int64_t index) {
    Sequence sequence{0, tokens, index, 1, 1};
    if (packed.offsets == nullptr) return sequence;
    const int64_t zero = 0;
    const int64_t end = min(max(offset_at(packed, index + 1), zero), tokens);
    sequence.first = min(max(offset_at(packed, index), zero), tokens);
    sequence.tokens = max(end - sequence.first, zero);
    if (packed.pool == nullptr) return sequence;
    sequence.entry = slot_of(packed, index);
    const bool from_zeros = packed.has_initial != nullptr && __ldcg(packed.has_initial + index) == 0;
    if (sequence.entry < 0) return {0, 0, 0, 0, 0};
    sequence.reads_state = !from_zeros && sequence.tokens > 0;
    sequence.writes_state = from_zeros || sequence.tokens > 0;
    return sequence;
}

// Whether a token belongs to no sequence, or to one whose slot is none.
__device__ __forceinline__ bool is_padding(const PackedBatch& packed, int64_t token) {
    int64_t low = 0; // offsets before this one are <= token
    int64_t high = packed.sequences + 1;
    while (low < high) {
        const int64_t middle = (low + high) / 2;
        if (offset_at(packed, middle) <= token)
            low = middle + 1;
        else
            high = middle;
    }
    if (low == 0 || low > packed.sequences) return true;
    return packed.pool != nullptr && slot_of(packed, low - 1) < 0;
}

} // namespace lattn::cuda
