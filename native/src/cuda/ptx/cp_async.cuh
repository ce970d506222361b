// Asynchronous copies from global to shared memory (sm_80 and newer).
#pragma once

#include <cstdint>

namespace lattn::cuda::ptx {

__device__ __forceinline__ uint32_t shared_address(const void* pointer) {
    return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

// Copies source_bytes (0 to 16) and fills the rest of the 16 bytes at `destination` with zeros. `source` must be a
// valid 16-byte aligned address even when source_bytes is 0.
__device__ __forceinline__ void cp_async_16(uint32_t destination, const void* source, uint32_t source_bytes) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(destination), "l"(source), "r"(source_bytes)
                 : "memory");
}

__device__ __forceinline__ void cp_async_commit() {
    asm volatile("cp.async.commit_group;\n" ::: "memory");
}

// Waits until at most kPending of this thread's committed groups are still in flight.
template <int kPending>
__device__ __forceinline__ void cp_async_wait() {
    asm volatile("cp.async.wait_group %0;\n" ::"n"(kPending) : "memory");
}

} // namespace lattn::cuda::ptx
