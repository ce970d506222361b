// Warpgroup-wide matrix products (wgmma, sm_90a): acc[64 x kN] (+)= a[64 x 16] b[16 x kN], fp32 accumulators, a from
// registers, b from shared memory. Issued by four consecutive warps together; asynchronous until wgmma_wait().
//
// Warp w of the group holds rows 16w .. 16w+15. Lane l holds, of accumulator tile t (8 columns), acc[4t + 2h + c] =
// row l/4 + 8h, column 8t + 2(l%4) + c. a[2u + h] holds row l/4 + 8h, columns 8u + 2(l%4) and the next, the lower half
// first: two accumulator tiles, rounded to pairs, are an operand a.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>
#include <type_traits>

#include "ptx/cp_async.cuh"

namespace lattn::cuda::ptx {

// Order of b[k][n] in shared memory. Both are cut into tiles of 64 contiguous 16-bit elements by 8 rows, 1024 bytes
// that lie one after the other, with the 128-byte swizzle: bits 4 to 6 of the address XOR bits 7 to 9.
enum class BOrder : int {
    kKContiguous = 0, // rows are n, contiguous along k
    kNContiguous = 1, // rows are k, contiguous along n
};

// Describes b from `address` on. kNContiguous with kN > 64: column 64 begins `column_block_bytes` after column 0.
__device__ __forceinline__ uint64_t wgmma_operand(uint32_t address, uint32_t column_block_bytes) {
    constexpr uint64_t kSwizzle128 = uint64_t{1} << 62;
    constexpr uint64_t kRowBlockBytes = 1024;
    return kSwizzle128 | (kRowBlockBytes >> 4) << 32 | uint64_t{(column_block_bytes & 0x3ffff) >> 4} << 16 |
           ((address & 0x3ffff) >> 4);
}

// The operand `bytes` further on. A step of 16 in k is 32 bytes for kKContiguous (within 64), 2048 for kNContiguous.
__device__ __forceinline__ uint64_t wgmma_operand_at(uint64_t operand, uint32_t bytes) {
    // No carry leaves the lower half: one addition.
    return (operand & 0xffffffff00000000) | (static_cast<uint32_t>(operand) + (bytes >> 4));
}

// Orders this warpgroup's use of registers before its next products; needed when accumulators or operands a were
// touched since the last one.
__device__ __forceinline__ void wgmma_fence() {
    asm volatile("wgmma.fence.sync.aligned;\n" ::: "memory");
}

__device__ __forceinline__ void wgmma_commit() {
    asm volatile("wgmma.commit_group.sync.aligned;\n" ::: "memory");
}

// Waits until at most kPending committed groups are unfinished.
template <int kPending>
__device__ __forceinline__ void wgmma_wait() {
    asm volatile("wgmma.wait_group.sync.aligned %0;\n" ::"n"(kPending) : "memory");
}

// Tells the compiler that registers change here: products in flight write them behind its back.
template <int kCount>
__device__ __forceinline__ void touch(float (&values)[kCount]) {
#pragma unroll
    for (int i = 0; i < kCount; ++i) asm volatile("" : "+f"(values[i])::"memory");
}

// After the wait for products with operands a of these registers: keeps them as they are until here. The products read
// them after they were issued, but ptxas (12.4) takes the registers of an operand for free from then on. `never` is
// false; the compiler must not be able to know.
template <int kOperands>
__device__ __forceinline__ void hold(const uint32_t (&a)[kOperands][4], bool never) {
    static_assert(kOperands % 4 == 0);
#pragma unroll
    for (int i = 0; i < kOperands; i += 4)
        asm volatile(
            "{\n"
            ".reg .pred never;\n"
            "setp.ne.b32 never, %16, 0;\n"
            "@!never bra held_%=;\n"
            "st.shared.v4.b32 [%17], {%0, %1, %2, %3};\n"
            "st.shared.v4.b32 [%17], {%4, %5, %6, %7};\n"
            "st.shared.v4.b32 [%17], {%8, %9, %10, %11};\n"
            "st.shared.v4.b32 [%17], {%12, %13, %14, %15};\n"
            "held_%=:\n"
            "}\n" ::"r"(a[i][0]),
            "r"(a[i][1]), "r"(a[i][2]), "r"(a[i][3]), "r"(a[i + 1][0]), "r"(a[i + 1][1]), "r"(a[i + 1][2]),
            "r"(a[i + 1][3]), "r"(a[i + 2][0]), "r"(a[i + 2][1]), "r"(a[i + 2][2]), "r"(a[i + 2][3]), "r"(a[i + 3][0]),
            "r"(a[i + 3][1]), "r"(a[i + 3][2]), "r"(a[i + 3][3]), "r"(static_cast<int>(never)), "r"(0)
            : "memory");
}

// acc (+)= a b for elements of type T; the number of columns kN follows from acc.
template <typename T, BOrder kOrder>
struct Wgmma {
    static_assert(std::is_same_v<T, __nv_bfloat16> || std::is_same_v<T, __half>);
    static constexpr bool kBfloat16 = std::is_same_v<T, __nv_bfloat16>;

// clang-format off
#define LATTN_WGMMA_N64(element) \
    asm volatile( \
        "{\n" \
        ".reg .pred accumulate;\n" \
        "setp.ne.b32 accumulate, %37, 0;\n" \
        "wgmma.mma_async.sync.aligned.m64n64k16.f32." element "." element " {" \
        "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, " \
        "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, " \
        "{%32, %33, %34, %35}, %36, accumulate, 1, 1, %38;\n" \
        "}\n" \
        : "+f"(acc[0]), "+f"(acc[1]), "+f"(acc[2]), "+f"(acc[3]), "+f"(acc[4]), "+f"(acc[5]), "+f"(acc[6]), "+f"(acc[7]), \
          "+f"(acc[8]), "+f"(acc[9]), "+f"(acc[10]), "+f"(acc[11]), "+f"(acc[12]), "+f"(acc[13]), "+f"(acc[14]), "+f"(acc[15]), \
          "+f"(acc[16]), "+f"(acc[17]), "+f"(acc[18]), "+f"(acc[19]), "+f"(acc[20]), "+f"(acc[21]), "+f"(acc[22]), "+f"(acc[23]), \
          "+f"(acc[24]), "+f"(acc[25]), "+f"(acc[26]), "+f"(acc[27]), "+f"(acc[28]), "+f"(acc[29]), "+f"(acc[30]), "+f"(acc[31]) \
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(static_cast<int>(accumulate)), \
          "n"(static_cast<int>(kOrder)))

#define LATTN_WGMMA_N128(element) \
    asm volatile( \
        "{\n" \
        ".reg .pred accumulate;\n" \
        "setp.ne.b32 accumulate, %69, 0;\n" \
        "wgmma.mma_async.sync.aligned.m64n128k16.f32." element "." element " {" \
        "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, " \
        "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, " \
        "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, " \
        "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, " \
        "{%64, %65, %66, %67}, %68, accumulate, 1, 1, %70;\n" \
        "}\n" \
        : "+f"(acc[0]), "+f"(acc[1]), "+f"(acc[2]), "+f"(acc[3]), "+f"(acc[4]), "+f"(acc[5]), "+f"(acc[6]), "+f"(acc[7]), \
          "+f"(acc[8]), "+f"(acc[9]), "+f"(acc[10]), "+f"(acc[11]), "+f"(acc[12]), "+f"(acc[13]), "+f"(acc[14]), "+f"(acc[15]), \
          "+f"(acc[16]), "+f"(acc[17]), "+f"(acc[18]), "+f"(acc[19]), "+f"(acc[20]), "+f"(acc[21]), "+f"(acc[22]), "+f"(acc[23]), \
          "+f"(acc[24]), "+f"(acc[25]), "+f"(acc[26]), "+f"(acc[27]), "+f"(acc[28]), "+f"(acc[29]), "+f"(acc[30]), "+f"(acc[31]), \
          "+f"(acc[32]), "+f"(acc[33]), "+f"(acc[34]), "+f"(acc[35]), "+f"(acc[36]), "+f"(acc[37]), "+f"(acc[38]), "+f"(acc[39]), \
          "+f"(acc[40]), "+f"(acc[41]), "+f"(acc[42]), "+f"(acc[43]), "+f"(acc[44]), "+f"(acc[45]), "+f"(acc[46]), "+f"(acc[47]), \
          "+f"(acc[48]), "+f"(acc[49]), "+f"(acc[50]), "+f"(acc[51]), "+f"(acc[52]), "+f"(acc[53]), "+f"(acc[54]), "+f"(acc[55]), \
          "+f"(acc[56]), "+f"(acc[57]), "+f"(acc[58]), "+f"(acc[59]), "+f"(acc[60]), "+f"(acc[61]), "+f"(acc[62]), "+f"(acc[63]) \
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(static_cast<int>(accumulate)), \
          "n"(static_cast<int>(kOrder)))
    // clang-format on

    // kN = 64
    __device__ __forceinline__ static void multiply(float (&acc)[32], const uint32_t (&a)[4], uint64_t b,
                                                    bool accumulate) {
        if constexpr (kBfloat16)
            LATTN_WGMMA_N64("bf16");
        else
            LATTN_WGMMA_N64("f16");
    }

    // kN = 128
    __device__ __forceinline__ static void multiply(float (&acc)[64], const uint32_t (&a)[4], uint64_t b,
                                                    bool accumulate) {
        if constexpr (kBfloat16)
            LATTN_WGMMA_N128("bf16");
        else
            LATTN_WGMMA_N128("f16");
    }

#undef LATTN_WGMMA_N64
#undef LATTN_WGMMA_N128
};

} // namespace lattn::cuda::ptx
