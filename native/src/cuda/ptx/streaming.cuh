// Accesses to memory that is read once and written once.
#pragma once

#include <cstdint>

namespace lattn::cuda::ptx {

// Word: 16 bytes, as `uint32_t word[4]`, aligned to 16. Not moved before the wait for a prior kernel, and never by way
// of the read-only cache.
template <typename Word>
__device__ __forceinline__ Word load_streaming(const Word* from) {
    static_assert(sizeof(Word) == 16 && alignof(Word) == 16);
    Word value;
    asm volatile("ld.global.v4.u32 {%0, %1, %2, %3}, [%4];\n"
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

// The same, of lines that leave L2 before others.
template <typename Word>
__device__ __forceinline__ void store_evict_first(Word* to, const Word& value) {
    static_assert(sizeof(Word) == 16 && alignof(Word) == 16);
    asm volatile("st.global.cs.v4.u32 [%0], {%1, %2, %3, %4};\n" ::"l"(to), "r"(value.word[0]), "r"(value.word[1]),
                 "r"(value.word[2]), "r"(value.word[3])
                 : "memory");
}

// Brings what is at an address into L2.
__device__ __forceinline__ void prefetch_l2(const void* from) {
    asm volatile("prefetch.global.L2 [%0];\n" ::"l"(from));
}

// Past L1: a later load of the same address finds nothing that this one left behind.
__device__ __forceinline__ int32_t load_past_l1(const int32_t* from) {
    int32_t value;
    asm volatile("ld.relaxed.gpu.global.s32 %0, [%1];\n" : "=r"(value) : "l"(from) : "memory");
    return value;
}

__device__ __forceinline__ int64_t load_past_l1(const int64_t* from) {
    int64_t value;
    asm volatile("ld.relaxed.gpu.global.s64 %0, [%1];\n" : "=l"(value) : "l"(from) : "memory");
    return value;
}

} // namespace lattn::cuda::ptx
