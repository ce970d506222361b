// Emulates ptx/packed_bf16.cuh.
#pragma once

#include <cmath>
#include <cstdint>

#include "ptx/convert.cuh"

namespace lattn::cuda::ptx {

// a b + c, rounded once: a product of two bf16 is exact in fp32, and the sum's error decides a tie.
inline uint32_t fma_bf16(uint32_t a, uint32_t b, uint32_t c) {
    const auto one = [](float x, float y, float z) {
        const double sum = static_cast<double>(x) * y + z;
        auto rounded = static_cast<float>(sum);
        // To odd, so that the second rounding sees that there was a rest.
        if (std::isfinite(rounded) && static_cast<double>(rounded) != sum && (__float_as_uint(rounded) & 1) == 0)
            rounded = std::nextafter(rounded, static_cast<double>(rounded) < sum ? INFINITY : -INFINITY);
        return rounded;
    };
    const float2 x = unpack_bf16(a), y = unpack_bf16(b), z = unpack_bf16(c);
    return pack_bf16(one(x.x, y.x, z.x), one(x.y, y.y, z.y));
}

inline uint32_t mul_bf16(uint32_t a, uint32_t b) {
    return fma_bf16(a, b, 0x80008000u);
}

inline uint32_t negate_bf16(uint32_t a) {
    return a ^ 0x80008000u;
}

} // namespace lattn::cuda::ptx
