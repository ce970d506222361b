// What the emulated ptx/ headers call; each function is the instruction of its name for the thread that runs.
#pragma once

#include <cstdint>

#include "gpu_emulator/ptx/tensor_map.h"

namespace lattn::emulator {

using cuda::ptx::TensorMap;

char* dynamic_shared();
uint32_t shared_address(const void* pointer);

void mbarrier_init(uint32_t address, uint32_t arrivals);
void fence_mbarrier_init();
void mbarrier_arrive(uint32_t address);
void mbarrier_arrive_expect_bytes(uint32_t address, uint32_t bytes);
void mbarrier_wait(uint32_t address, uint32_t parity);

void prefetch_map(const TensorMap& map);
void load_box(uint32_t shared, const TensorMap& map, uint32_t barrier, const int32_t (&at)[4]);
void store_box(const TensorMap& map, uint32_t shared, const int32_t (&at)[4]);
void commit_stores();
void wait_stores_read(int pending_groups);
void wait_stores();
void fence_async_shared();

void load_matrices(uint32_t (&matrices)[4], uint32_t row_address, bool transposed);
void store_matrices(uint32_t row_address, const uint32_t (&matrices)[4]);

enum class ElementType { kBfloat16, kHalf, kTf32 };

// acc[16 x 8] += a[16 x K] b[K x 8] of a warp: K is 16 for bf16, 8 for tf32.
void multiply(ElementType element, float (&acc)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]);

// 16 bytes: source_bytes of the source, then zeros. Not there before the wait for their group.
void copy_16(uint32_t destination, const void* source, uint32_t source_bytes);
void commit_copies();
void wait_copies(int pending_groups);

// A product as all threads of a warpgroup issue it.
struct WgmmaShape {
    ElementType element;
    int columns; // of b and the accumulators
    bool b_is_n_contiguous;
    uint64_t b; // PTX's matrix descriptor
    bool accumulate;

    bool operator==(const WgmmaShape&) const = default;
};

void wgmma_multiply(const WgmmaShape& shape, float* acc, const uint32_t (&a)[4]);
void wgmma_fence();
void wgmma_commit();
void wgmma_wait(int pending_groups);

void give_registers(int count);
void take_registers(int count);

void wait_for_prior_kernel();

void barrier_sync(int id, int threads);
void sync_block();
void sync_warp(uint32_t mask);
uint32_t shuffle(uint32_t mask, uint32_t value, int lane, int width);
uint32_t shuffle_xor(uint32_t mask, uint32_t value, int lane_mask, int width);

} // namespace lattn::emulator
