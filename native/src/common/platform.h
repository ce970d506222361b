// Everything that differs between compilers and operating systems: no other file asks which of them it is built with
// (ctest: sources.platform). Flags are in cmake/Compiler.cmake; LATTN_API is in the ABI's own header.
#pragma once

// lattn_build_info() names the compiler.
#define LATTN_STRINGIZE_VALUE(x) #x
#define LATTN_STRINGIZE(x) LATTN_STRINGIZE_VALUE(x)
#if defined(__clang__)
#define LATTN_COMPILER "clang " __clang_version__
#elif defined(__GNUC__)
#define LATTN_COMPILER "gcc " __VERSION__
#elif defined(_MSC_VER)
#define LATTN_COMPILER "msvc " LATTN_STRINGIZE(_MSC_FULL_VER)
#else
#define LATTN_COMPILER "unknown"
#endif

#if defined(__x86_64__) || defined(_M_X64)
#define LATTN_X86_64 1
#endif

// A function whose parameter `format` is a format of printf, the arguments being those from `first` on.
#if defined(__GNUC__)
#define LATTN_PRINTF_LIKE(format_index, first) __attribute__((format(printf, format_index, first)))
#else
#define LATTN_PRINTF_LIKE(format_index, first)
#endif

#if defined(_MSC_VER) && !defined(__clang__)
#define LATTN_INLINE static __forceinline
#else
#define LATTN_INLINE static inline __attribute__((always_inline))
#endif

// Before a loop of constant length.
#if defined(__clang__)
#define LATTN_UNROLL _Pragma("clang loop unroll(full)")
#elif defined(__GNUC__)
#define LATTN_UNROLL _Pragma("GCC unroll 16")
#else
#define LATTN_UNROLL
#endif

// Vectors with operators, of GCC and Clang: LATTN_VECTOR ends a typedef, LATTN_CONVERT_VECTOR takes a vector and the
// type that each lane is to have, LATTN_SHUFFLE_VECTORS picks lanes of two vectors, where the compiler can.
#if defined(__GNUC__) && !defined(LATTN_CPU_PLAIN_VECTORS)
#define LATTN_VECTOR_EXTENSIONS 1
#define LATTN_VECTOR(bytes) __attribute__((vector_size(bytes)))
#define LATTN_CONVERT_VECTOR(...) __builtin_convertvector(__VA_ARGS__)
#if defined(__has_builtin)
#if __has_builtin(__builtin_shufflevector)
#define LATTN_SHUFFLE_VECTORS(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#endif
#endif
#endif

// Without the extension: nothing below this line is contracted to a fused multiply-add.
#if defined(_MSC_VER) && !defined(__clang__)
#define LATTN_NO_CONTRACTION __pragma(fp_contract(off))
#else
#define LATTN_NO_CONTRACTION
#endif

// Asks for a cache line.
#if defined(__GNUC__)
#define LATTN_PREFETCH(address) __builtin_prefetch(address)
#else
#define LATTN_PREFETCH(address) static_cast<void>(address)
#endif

namespace lattn {

// exp, with the same bits in every thread.
float exponential(float x);
double exponential(double x);

// Instruction sets that the processor has and the operating system saves the registers of.
struct CpuFeatures {
    bool avx2 = false;   // with FMA and F16C
    bool avx512 = false; // F, BW, DQ, VL
};
CpuFeatures cpu_features();

// Name of the CUDA driver's library.
extern const char* const kCudaDriver;

// nullptr if there is none. Open libraries are never closed.
void* open_library(const char* name);
void* find_symbol(void* library, const char* name);

} // namespace lattn
