// Copies of boxes of a tensor between global and shared memory by the copy engine (TMA, sm_90). The driver encodes the
// tensor's address, sizes, strides, box and swizzle into the map. Elements outside the tensor are read as zeros and
// are not written. The address in shared memory is a multiple of the swizzle's 1024 bytes.
#pragma once

#include <cstdint>

#include "ptx/mbarrier.cuh"
#include "ptx/tensor_map.h"

namespace lattn::cuda::ptx {

// Coordinates of a box's first element, innermost axis first.
struct Coordinates {
    int32_t x, y, z, w;
};

__device__ __forceinline__ void prefetch_map(const TensorMap& map) {
    asm volatile("prefetch.tensormap [%0];\n" ::"l"(&map) : "memory");
}

// What happens to the lines of a copy in L2.
enum class Keep : uint64_t {
    kNormally = 0x1000000000000000,
    kShortly = 0x12f0000000000000, // the first ones to go
};

// By one thread. The bytes of the whole box, also of what lies outside, are counted on the barrier.
__device__ __forceinline__ void load_box(void* shared, const TensorMap& map, Mbarrier& barrier, Coordinates at,
                                         Keep keep = Keep::kNormally) {
    asm volatile(
        "cp.async.bulk.tensor.4d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1, "
        "{%3, %4, %5, %6}], [%2], %7;\n" ::"r"(shared_address(shared)),
        "l"(&map), "r"(shared_address(&barrier)), "r"(at.x), "r"(at.y), "r"(at.z), "r"(at.w),
        "l"(static_cast<uint64_t>(keep))
        : "memory");
}

// Brings a box to L2. By one thread.
__device__ __forceinline__ void prefetch_box(const TensorMap& map, Coordinates at) {
    asm volatile("cp.async.bulk.prefetch.tensor.4d.L2.global.tile [%0, {%1, %2, %3, %4}];\n" ::"l"(&map), "r"(at.x),
                 "r"(at.y), "r"(at.z), "r"(at.w)
                 : "memory");
}

// By one thread, after fence_async_shared() of those who wrote the box and a barrier.
__device__ __forceinline__ void store_box(const TensorMap& map, const void* shared, Coordinates at,
                                          Keep keep = Keep::kNormally) {
    asm volatile(
        "cp.async.bulk.tensor.4d.global.shared::cta.tile.bulk_group.L2::cache_hint [%0, {%2, %3, %4, %5}], [%1], "
        "%6;\n" ::"l"(&map),
        "r"(shared_address(shared)), "r"(at.x), "r"(at.y), "r"(at.z), "r"(at.w), "l"(static_cast<uint64_t>(keep))
        : "memory");
}

__device__ __forceinline__ void commit_stores() {
    asm volatile("cp.async.bulk.commit_group;\n" ::: "memory");
}

// Waits until at most kPending of this thread's committed groups still read shared memory.
template <int kPending>
__device__ __forceinline__ void wait_stores_read() {
    asm volatile("cp.async.bulk.wait_group.read %0;\n" ::"n"(kPending) : "memory");
}

// Waits until all of this thread's stores are complete.
__device__ __forceinline__ void wait_stores() {
    asm volatile("cp.async.bulk.wait_group 0;\n" ::: "memory");
}

// Orders this thread's ordinary accesses to shared memory before those of the copy engine and the matrix units, once a
// barrier has been passed: its writes before they read, and its reads before a copy writes. An arrival at the barrier
// alone does not wait for a load that is under way; one whose value has been used needs no fence.
__device__ __forceinline__ void fence_async_shared() {
    asm volatile("fence.proxy.async.shared::cta;\n" ::: "memory");
}

} // namespace lattn::cuda::ptx
