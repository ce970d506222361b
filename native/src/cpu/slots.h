// The integers that a call brings as a tensor of either width: slots of a pool, offsets, counts.
#pragma once

#include "lightning_attn.h"

namespace lattn::cpu {

// The slot of a row or sequence that is padding.
constexpr int64_t kPadding = -1;

// `dtype`: LATTN_INT32 or LATTN_INT64.
inline int64_t integer_at(const void* data, lattn_dtype dtype, int64_t index) {
    return dtype == LATTN_INT32 ? static_cast<const int32_t*>(data)[index] : static_cast<const int64_t*>(data)[index];
}

} // namespace lattn::cpu
