// Accesses to memory that is read once and written once: they take no room in L1.
#pragma once

#include <cstdint>

namespace lattn::cuda::ptx {

// Word: 16 bytes, as `uint32_t word[4]`, aligned to 16. Not moved before the wait for a prior kernel, and never by way
// of the read-only cache.
template <typename Word>
__device__ __forceinline__ Word load_streaming(const Word* from) {
    static_assert(sizeof(Word) == 16 && alignof(Word) == 16);
    Word value;
    asm volatile("ld.global.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];\n"
                 : "=r"(value.word[0]), "=r"(value.word[1]), "=r"(value.word[2]), "=r"(value.word[3])
                 : "l"(from));
    return value;
}

template <typename Word>
__device__ __forceinline__ void store_streaming(Word* to, const Word& value) {
    static_assert(sizeof(Word) == 16 && alignof(Word) == 16);
    asm volatile("st.global.v4.u32 [%0], {%1, %2, %3, %4};\n" ::"l"(to), "r"(value.word[0]), "r"(value.word[1]),
                 "r"(value.word[2]), "r"(value.word[3])
                 : "memory");
}

} // namespace lattn::cuda::ptx
