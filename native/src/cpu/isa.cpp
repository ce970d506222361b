// Picks the instruction set at run time. The only file of the CPU backend that asks the processor what it can do.
#include <cstdlib>
#include <cstring>

#include "cpu/cpu.h"
#include "cpu/kernels.h"

#if defined(__x86_64__) || defined(_M_X64)
#define LATTN_X86_64 1
#if defined(_MSC_VER) && !defined(__clang__)
#include <immintrin.h>
#include <intrin.h>
#endif
#endif

namespace lattn::cpu {
namespace {

#if defined(LATTN_X86_64)

#if defined(_MSC_VER) && !defined(__clang__)

struct Features {
    bool avx2 = false;
    bool avx512 = false;

    Features() {
        int leaf[4];
        __cpuid(leaf, 0);
        const int last_leaf = leaf[0];
        __cpuid(leaf, 1);
        constexpr int kFma = 1 << 12, kXsave = 1 << 27, kF16c = 1 << 29;
        constexpr int kWanted = kFma | kXsave | kF16c;
        if (last_leaf < 7 || (leaf[2] & kWanted) != kWanted) return;
        // The system must save the registers too: XMM and YMM, then opmask and ZMM.
        const unsigned long long saved = _xgetbv(0);
        __cpuidex(leaf, 7, 0);
        constexpr unsigned kAvx2 = 1u << 5, kAvx512 = 1u << 16 | 1u << 17 | 1u << 30 | 1u << 31; // F, DQ, BW, VL
        const unsigned extended = static_cast<unsigned>(leaf[1]);
        avx2 = (saved & 0x06) == 0x06 && (extended & kAvx2) != 0;
        avx512 = avx2 && (saved & 0xe6) == 0xe6 && (extended & kAvx512) == kAvx512;
    }
};

#else

struct Features {
    bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
    bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                  __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
};

#endif

const Kernels& select() {
    const Features features;
    const char* widest = std::getenv("LATTN_CPU_ISA");
    const auto limited_to = [widest](const char* name) { return widest != nullptr && std::strcmp(widest, name) == 0; };
    if (limited_to("baseline") || !features.avx2) return baseline::kernels;
    if (limited_to("avx2") || !features.avx512) return avx2::kernels;
    return avx512::kernels;
}

#else

const Kernels& select() {
    return baseline::kernels;
}

#endif

} // namespace

const Kernels& kernels() {
    static const Kernels& selected = select();
    return selected;
}

const TypeKernels& kernels_for(lattn_dtype dtype) {
    const Kernels& all = kernels();
    switch (dtype) {
        case LATTN_FLOAT16:
            return all.float16;
        case LATTN_BFLOAT16:
            return all.bfloat16;
        case LATTN_FLOAT64:
            return all.float64;
        default:
            return all.float32;
    }
}

const char* isa_name() {
    return kernels().name;
}

} // namespace lattn::cpu
