// Emulates ptx/wgmma.cuh.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>
#include <type_traits>

#include "ptx/cp_async.cuh"

namespace lattn::cuda::ptx {

enum class BOrder : int {
    kKContiguous = 0,
    kNContiguous = 1,
};

inline uint64_t wgmma_operand(uint32_t address, uint32_t column_block_bytes) {
    constexpr uint64_t kSwizzle128 = uint64_t{1} << 62;
    constexpr uint64_t kRowBlockBytes = 1024;
    return kSwizzle128 | (kRowBlockBytes >> 4) << 32 | uint64_t{(column_block_bytes & 0x3ffff) >> 4} << 16 |
           ((address & 0x3ffff) >> 4);
}

inline uint64_t wgmma_operand_at(uint64_t operand, uint32_t bytes) {
    return operand + (bytes >> 4);
}

inline void wgmma_fence() {
    emulator::wgmma_fence();
}

inline void wgmma_commit() {
    emulator::wgmma_commit();
}

template <int kPending>
void wgmma_wait() {
    emulator::wgmma_wait(kPending);
}

template <int kCount>
void touch(float (&)[kCount]) {}

template <int kOperands>
void hold(const uint32_t (&)[kOperands][4], bool) {}

template <typename T, BOrder kOrder>
struct Wgmma {
    static_assert(std::is_same_v<T, __nv_bfloat16> || std::is_same_v<T, __half>);

    static void multiply(float (&acc)[32], const uint32_t (&a)[4], uint64_t b, bool accumulate) {
        emulator::wgmma_multiply(shape(64, b, accumulate), acc, a);
    }

    static void multiply(float (&acc)[64], const uint32_t (&a)[4], uint64_t b, bool accumulate) {
        emulator::wgmma_multiply(shape(128, b, accumulate), acc, a);
    }

private:
    static emulator::WgmmaShape shape(int columns, uint64_t b, bool accumulate) {
        using emulator::ElementType;
        constexpr auto kElement = std::is_same_v<T, __half> ? ElementType::kHalf : ElementType::kBfloat16;
        return {kElement, columns, kOrder == BOrder::kNContiguous, b, accumulate};
    }
};

} // namespace lattn::cuda::ptx
