// States whose element type is known only when the kernel runs.
#pragma once

#include "packed/packed_batch.h"
#include "tile/element.cuh"
#include "tile/transposed_state.cuh"

namespace lattn::cuda {

// Strides are in units of 16 bits, of which a float is two.
struct AnyStateSlice {
    StateSlice<uint16_t> units;
    PoolType type;
};

__device__ __forceinline__ int units_of(PoolType type) {
    return type == kPoolFloat32 ? 2 : 1;
}

__device__ __forceinline__ float load_any(const uint16_t& unit, PoolType type) {
    if (type == kPoolFloat32) return *reinterpret_cast<const float*>(&unit);
    return type == kPoolBfloat16 ? to_float(*reinterpret_cast<const __nv_bfloat16*>(&unit))
                                 : to_float(*reinterpret_cast<const __half*>(&unit));
}

__device__ __forceinline__ void store_any(uint16_t& unit, PoolType type, float value) {
    if (type == kPoolFloat32)
        *reinterpret_cast<float*>(&unit) = value;
    else if (type == kPoolBfloat16)
        *reinterpret_cast<__nv_bfloat16*>(&unit) = from_float<__nv_bfloat16>(value);
    else
        *reinterpret_cast<__half*>(&unit) = from_float<__half>(value);
}

template <int kTiles>
__device__ __forceinline__ void add_any_state(const AnyStateSlice& state, float (&x)[kTiles][4]) {
    for_each_element(state.units, x, [&](float& value, uint16_t& unit) { value += load_any(unit, state.type); });
}

template <int kTiles>
__device__ __forceinline__ void write_any_state(const AnyStateSlice& state, float (&x)[kTiles][4]) {
    for_each_element(state.units, x, [&](float value, uint16_t& unit) { store_any(unit, state.type, value); });
}

} // namespace lattn::cuda
