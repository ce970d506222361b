// Arithmetic on pairs of bf16, rounded to nearest even (sm_90).
#pragma once

#include <cstdint>

namespace lattn::cuda::ptx {

__device__ __forceinline__ uint32_t mul_bf16(uint32_t a, uint32_t b) {
    uint32_t product;
    asm("mul.rn.bf16x2 %0, %1, %2;\n" : "=r"(product) : "r"(a), "r"(b));
    return product;
}

// a b + c, rounded once.
__device__ __forceinline__ uint32_t fma_bf16(uint32_t a, uint32_t b, uint32_t c) {
    uint32_t sum;
    asm("fma.rn.bf16x2 %0, %1, %2, %3;\n" : "=r"(sum) : "r"(a), "r"(b), "r"(c));
    return sum;
}

// By the sign bits: neg.bf16x2 would be a multiplication and addition.
__device__ __forceinline__ uint32_t negate_bf16(uint32_t a) {
    return a ^ 0x80008000u;
}

} // namespace lattn::cuda::ptx
