// Emulates ptx/convert.cuh.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <bit>
#include <cmath>
#include <cstdint>

#include "gpu_emulator/cuda_on_host.h"

namespace lattn::cuda::ptx {

inline uint32_t pack_bf16(float low, float high) {
    const auto bits = [](float value) {
        return uint32_t{std::bit_cast<__nv_bfloat16_raw>(__float2bfloat16_rn(value)).x};
    };
    return bits(high) << 16 | bits(low);
}

inline float2 unpack_bf16(uint32_t packed) {
    return {__uint_as_float(packed << 16), __uint_as_float(packed & 0xffff0000u)};
}

inline uint32_t pack_half(float low, float high) {
    const auto bits = [](float value) { return uint32_t{std::bit_cast<__half_raw>(__float2half_rn(value)).x}; };
    return bits(high) << 16 | bits(low);
}

inline float2 unpack_half(uint32_t packed) {
    const auto value = [](uint32_t bits) {
        __half_raw raw;
        raw.x = static_cast<unsigned short>(bits);
        return __half2float(__half(raw));
    };
    return {value(packed & 0xffffu), value(packed >> 16)};
}

inline uint32_t round_to_tf32(float value) {
    const uint32_t bits = __float_as_uint(value);
    if (value != value) return 0x7fffffffu;
    return (std::isinf(value) ? bits : bits + 0x1000u) & 0xffffe000u;
}

} // namespace lattn::cuda::ptx
