// Conversions between fp32 and the operand types of the matrix units.
#pragma once

#include <cuda_fp16.h>

#include <cstdint>

namespace lattn::cuda::ptx {

// Rounds to nearest even; `low` goes to the lower half.
__device__ __forceinline__ uint32_t pack_bf16(float low, float high) {
    uint32_t packed;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;\n" : "=r"(packed) : "f"(high), "f"(low));
    return packed;
}

__device__ __forceinline__ float2 unpack_bf16(uint32_t packed) {
    return {__uint_as_float(packed << 16), __uint_as_float(packed & 0xffff0000u)};
}

__device__ __forceinline__ uint32_t pack_half(float low, float high) {
    uint32_t packed;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;\n" : "=r"(packed) : "f"(high), "f"(low));
    return packed;
}

__device__ __forceinline__ float2 unpack_half(uint32_t packed) {
    return __half22float2(*reinterpret_cast<const __half2*>(&packed));
}

// fp32 rounded to the 10 mantissa bits of tf32, ties away from zero.
__device__ __forceinline__ uint32_t round_to_tf32(float value) {
    uint32_t rounded;
    asm("cvt.rna.tf32.f32 %0, %1;\n" : "=r"(rounded) : "f"(value));
    return rounded;
}

} // namespace lattn::cuda::ptx
