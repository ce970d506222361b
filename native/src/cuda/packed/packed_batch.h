// A packed batch, shared by host and device code: sequences of different lengths one after the other in tensors
// [1, H, T, X], with or without a pool of states. Everything that it points to is device memory.
#pragma once

#include <cstdint>

namespace lattn::cuda {

// The element types of a pool.
enum PoolType : int32_t { kPoolFloat32, kPoolBfloat16, kPoolFloat16 };

struct PackedBatch {
    const void* offsets; // [sequences + 1]; NULL: not a packed batch
    int64_t sequences;
    void* pool;                 // [slot_count, H, D, E]; NULL: none, sequences start from zeros
    const void* slots;          // [sequences]; NULL: slot b of sequence b
    const uint8_t* has_initial; // [sequences], 0: the sequence starts from zeros; NULL: none does
    int64_t slot_count;
    int64_t stride_slot, stride_h, stride_row, stride_column; // of the pool, in elements
    PoolType pool_type;
    int32_t offsets_are_int64;
    int32_t slots_are_int64;
};

} // namespace lattn::cuda
