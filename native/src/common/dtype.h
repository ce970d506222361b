// What is known about an element type by its code.
#pragma once

#include <cstddef>

#include "lightning_attn.h"

namespace lattn {

constexpr const char* dtype_name(lattn_dtype dtype) {
    switch (dtype) {
        case LATTN_INT32:
            return "int32";
        case LATTN_INT64:
            return "int64";
        case LATTN_FLOAT16:
            return "float16";
        case LATTN_FLOAT32:
            return "float32";
        case LATTN_FLOAT64:
            return "float64";
        case LATTN_BFLOAT16:
            return "bfloat16";
        default:
            return "unknown";
    }
}

constexpr std::size_t dtype_bytes(lattn_dtype dtype) {
    switch (dtype) {
        case LATTN_FLOAT16:
        case LATTN_BFLOAT16:
            return 2;
        case LATTN_INT32:
        case LATTN_FLOAT32:
            return 4;
        case LATTN_INT64:
        case LATTN_FLOAT64:
            return 8;
        default:
            return 0;
    }
}

constexpr bool is_floating(lattn_dtype dtype) {
    return dtype == LATTN_FLOAT16 || dtype == LATTN_FLOAT32 || dtype == LATTN_FLOAT64 || dtype == LATTN_BFLOAT16;
}

// The type of states, rates and arithmetic for tensors of `dtype`.
constexpr lattn_dtype state_dtype_of(lattn_dtype dtype) {
    return dtype == LATTN_FLOAT64 ? LATTN_FLOAT64 : LATTN_FLOAT32;
}

} // namespace lattn
