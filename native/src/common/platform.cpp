#include "common/platform.h"

#include <cmath>

#if defined(_WIN32)
#ifndef NOMINMAX
#define NOMINMAX
#endif
#include <windows.h>
#else
#include <dlfcn.h>
#endif

#if defined(LATTN_X86_64) && defined(_MSC_VER) && !defined(__clang__)
#include <immintrin.h>
#include <intrin.h>
#endif

#if defined(__MINGW32__)
// exp of msvcrt.dll. That of mingw-w64 computes in x87 registers, with the precision that its thread is set to: 64 bits
// where winpthreads started the thread, 53 bits elsewhere, so that results would depend on the thread.
extern "C" double (*__imp_exp)(double);
#endif

namespace lattn {

#if defined(__MINGW32__)
float exponential(float x) {
    return static_cast<float>(__imp_exp(static_cast<double>(x)));
}
double exponential(double x) {
    return __imp_exp(x);
}
#else
float exponential(float x) {
    return std::exp(x);
}
double exponential(double x) {
    return std::exp(x);
}
#endif

CpuFeatures cpu_features() {
    CpuFeatures features;
#if defined(LATTN_X86_64) && defined(_MSC_VER) && !defined(__clang__)
    int leaf[4];
    __cpuid(leaf, 0);
    const int last_leaf = leaf[0];
    __cpuid(leaf, 1);
    constexpr int kFma = 1 << 12, kXsave = 1 << 27, kF16c = 1 << 29;
    constexpr int kWanted = kFma | kXsave | kF16c;
    if (last_leaf < 7 || (leaf[2] & kWanted) != kWanted) return features;
    // The system must save the registers too: XMM and YMM, then opmask and ZMM.
    const unsigned long long saved = _xgetbv(0);
    __cpuidex(leaf, 7, 0);
    constexpr unsigned kAvx2 = 1u << 5, kAvx512 = 1u << 16 | 1u << 17 | 1u << 30 | 1u << 31; // F, DQ, BW, VL
    const unsigned extended = static_cast<unsigned>(leaf[1]);
    features.avx2 = (saved & 0x06) == 0x06 && (extended & kAvx2) != 0;
    features.avx512 = features.avx2 && (saved & 0xe6) == 0xe6 && (extended & kAvx512) == kAvx512;
#elif defined(LATTN_X86_64)
    features.avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
    features.avx512 = features.avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
#endif
    return features;
}

#if defined(_WIN32)
const char* const kCudaDriver = "nvcuda.dll";
void* open_library(const char* name) {
    return reinterpret_cast<void*>(LoadLibraryA(name));
}
void* find_symbol(void* library, const char* name) {
    return reinterpret_cast<void*>(GetProcAddress(static_cast<HMODULE>(library), name));
}
#else
const char* const kCudaDriver = "libcuda.so.1";
void* open_library(const char* name) {
    return dlopen(name, RTLD_NOW | RTLD_LOCAL);
}
void* find_symbol(void* library, const char* name) {
    return dlsym(library, name);
}
#endif

} // namespace lattn
