// Functions that the hardware computes to about 22 bits, subnormal numbers taken for zeros.
#pragma once

namespace lattn::cuda::ptx {

// 2^x
__device__ __forceinline__ float approximate_exp2(float x) {
    float result;
    asm("ex2.approx.ftz.f32 %0, %1;\n" : "=f"(result) : "f"(x));
    return result;
}

// 1 / x
__device__ __forceinline__ float approximate_reciprocal(float x) {
    float result;
    asm("rcp.approx.ftz.f32 %0, %1;\n" : "=f"(result) : "f"(x));
    return result;
}

// 1 / sqrt(x)
__device__ __forceinline__ float approximate_rsqrt(float x) {
    float result;
    asm("rsqrt.approx.f32 %0, %1;\n" : "=f"(result) : "f"(x));
    return result;
}

} // namespace lattn::cuda::ptx
