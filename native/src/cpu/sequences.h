// The sequences of a call: entries of a batch, or parts of a packed one.
#pragma once

#include <vector>

#include "common/status.h"

namespace lattn::cpu {

struct Sequence {
    int64_t index; // in the batch
    int64_t entry; // of the tensors' batch axis
    int64_t first; // token of that entry
    int64_t tokens;
    int64_t slot;           // of the pool
    bool starts_from_zeros; // whatever is in the slot
};

// The sequences that have tokens, and those whose slot must be zeroed; the longest first. Checks the offsets and the
// slots, so that nothing has been written when they are wrong. pool.states.data NULL: no pool.
Status sequences_of(const lattn_problem& problem, const lattn_pool& pool, std::vector<Sequence>& sequences);

// How many of them are about as long as the longest: where they are few, each must be cut for all threads.
int64_t long_sequences(const std::vector<Sequence>& sequences);

// Writes zeros to the rows [1, heads, T, columns] of tokens that belong to none of them.
void clear_padding(const lattn_problem& problem, const std::vector<Sequence>& sequences, const lattn_view& view,
                   int64_t heads, int64_t columns);

} // namespace lattn::cpu
