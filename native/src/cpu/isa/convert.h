// Element types and their conversion, rounding to nearest even. Integer arithmetic without branches serves every
// instruction set, and subnormal numbers come out right whatever the caller's flush-to-zero mode.
#pragma once

#include "cpu/isa/vec.h"

namespace lattn::cpu::LATTN_CPU_ISA {

struct Float16 {
    uint16_t bits;
};
struct BFloat16 {
    uint16_t bits;
};

template <typename Element>
struct ArithmeticOf {
    using type = float;
};
template <>
struct ArithmeticOf<double> {
    using type = double;
};
template <typename Element>
using Arithmetic = typename ArithmeticOf<Element>::type;

// The conversions work on one element (Word = uint32_t, Float = float) and on a vector of them; a half type's bits are
// the low half of a Word.

template <typename Word, typename Float>
LATTN_INLINE Word bits_of(Float value) {
    Word bits;
    memcpy(&bits, &value, sizeof(bits));
    return bits;
}

template <typename Word, typename Float>
LATTN_INLINE Float float_of(Word bits) {
    Float value;
    memcpy(&value, &bits, sizeof(value));
    return value;
}

template <typename Word, typename Float>
LATTN_INLINE Float widen(BFloat16, Word half) {
    return float_of<Word, Float>(half << 16);
}

template <typename Word, typename Float>
LATTN_INLINE Float widen(Float16, Word half) {
    constexpr uint32_t kExponentShift = 112u << 23; // bias 127 against 15
    constexpr uint32_t kSmallestNormal = 113u << 23;
    const Word sign = (half & 0x8000u) << 16;
    const Word magnitude = (half & 0x7fffu) << 13;
    const Word normal = magnitude + kExponentShift;
    const Word infinite_or_nan = normal + kExponentShift;
    const Float offset = float_of<Word, Float>(magnitude * 0u + kSmallestNormal);
    const Word subnormal = bits_of<Word, Float>(float_of<Word, Float>(magnitude + kSmallestNormal) - offset);
    const Word finite = magnitude < (1u << 23) ? subnormal : normal;
    return float_of<Word, Float>((magnitude >= (31u << 23) ? infinite_or_nan : finite) | sign);
}

template <typename Word, typename Float>
LATTN_INLINE Word narrow(BFloat16, Float value) {
    const Word bits = bits_of<Word, Float>(value);
    const Word rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    const Word quiet_nan = (bits >> 16) | 0x40u;
    return (bits & 0x7fffffffu) > 0x7f800000u ? quiet_nan : rounded;
}

template <typename Word, typename Float>
LATTN_INLINE Word narrow(Float16, Float value) {
    constexpr uint32_t kInfinity = 0x7f800000u;
    constexpr uint32_t kOverflow = (127u + 16u) << 23;       // 2^16
    constexpr uint32_t kSmallestNormal = (127u - 14u) << 23; // 2^-14
    constexpr uint32_t kSubnormalUnit = (127u - 1u) << 23;   // 2^-1: its last bit is float16's, 2^-24
    const Word bits = bits_of<Word, Float>(value);
    const Word magnitude = bits & 0x7fffffffu;
    const Word zero = magnitude * 0u;
    const Word normal = (magnitude - (112u << 23) + 0xfffu + ((magnitude >> 13) & 1u)) >> 13;
    const Float unit = float_of<Word, Float>(zero + kSubnormalUnit);
    const Word subnormal = bits_of<Word, Float>(float_of<Word, Float>(magnitude) + unit) - kSubnormalUnit;
    const Word finite = magnitude < kSmallestNormal ? subnormal : normal;
    const Word not_finite = magnitude > kInfinity ? zero + 0x7e00u : zero + 0x7c00u;
    return (magnitude >= kOverflow ? not_finite : finite) | ((bits >> 16) & 0x8000u);
}

LATTN_INLINE float load_element(const float* source) {
    return *source;
}
LATTN_INLINE double load_element(const double* source) {
    return *source;
}
template <typename Element>
LATTN_INLINE float load_element(const Element* source) {
    return widen<uint32_t, float>(Element{}, static_cast<uint32_t>(source->bits));
}

LATTN_INLINE void store_element(float* destination, float value) {
    *destination = value;
}
LATTN_INLINE void store_element(double* destination, double value) {
    *destination = value;
}
template <typename Element>
LATTN_INLINE void store_element(Element* destination, float value) {
    destination->bits = static_cast<uint16_t>(narrow<uint32_t, float>(Element{}, value));
}

// A vector of consecutive elements.
LATTN_INLINE Vec<float> load_elements(const float* source) {
    return load(source);
}
LATTN_INLINE Vec<double> load_elements(const double* source) {
    return load(source);
}
LATTN_INLINE void store_elements(float* destination, const Vec<float>& value) {
    store(destination, value);
}
LATTN_INLINE void store_elements(double* destination, const Vec<double>& value) {
    store(destination, value);
}

#if defined(LATTN_VECTOR_EXTENSIONS)

typedef uint32_t Words LATTN_VECTOR(kVectorBytes);
typedef uint16_t Halves LATTN_VECTOR(kVectorBytes / 2);

template <typename Element>
LATTN_INLINE Vec<float> load_elements(const Element* source) {
    Halves halves;
    memcpy(&halves, source, sizeof(halves));
    return widen<Words, Vec<float>>(Element{}, LATTN_CONVERT_VECTOR(halves, Words));
}

template <typename Element>
LATTN_INLINE void store_elements(Element* destination, const Vec<float>& value) {
    const Halves halves = LATTN_CONVERT_VECTOR(narrow<Words, Vec<float>>(Element{}, value), Halves);
    memcpy(destination, &halves, sizeof(halves));
}

#else

template <typename Element>
LATTN_INLINE Vec<float> load_elements(const Element* source) {
    Vec<float> result;
    for (int i = 0; i < kLanes<float>; ++i) result[i] = load_element(source + i);
    return result;
}

template <typename Element>
LATTN_INLINE void store_elements(Element* destination, const Vec<float>& value) {
    for (int i = 0; i < kLanes<float>; ++i) store_element(destination + i, value[i]);
}

#endif

template <typename Element>
LATTN_INLINE void widen_row(Arithmetic<Element>* destination, const Element* source, int64_t count) {
    constexpr int lanes = kLanes<Arithmetic<Element>>;
    int64_t i = 0;
    for (; i + lanes <= count; i += lanes) store(destination + i, load_elements(source + i));
    for (; i < count; ++i) destination[i] = load_element(source + i);
}

template <typename Element>
LATTN_INLINE void narrow_row(Element* destination, const Arithmetic<Element>* source, int64_t count) {
    constexpr int lanes = kLanes<Arithmetic<Element>>;
    int64_t i = 0;
    for (; i + lanes <= count; i += lanes) store_elements(destination + i, load(source + i));
    for (; i < count; ++i) store_element(destination + i, source[i]);
}

} // namespace lattn::cpu::LATTN_CPU_ISA
