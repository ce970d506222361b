// Emulates ptx/cp_async.cuh.
#pragma once

#include <cstdint>

#include "gpu_emulator/instructions.h"

namespace lattn::cuda::ptx {

inline uint32_t shared_address(const void* pointer) {
    return emulator::shared_address(pointer);
}

inline void cp_async_16(uint32_t destination, const void* source, uint32_t source_bytes) {
    emulator::copy_16(destination, source, source_bytes);
}

inline void cp_async_commit() {
    emulator::commit_copies();
}

template <int kPending>
void cp_async_wait() {
    emulator::wait_copies(kPending);
}

} // namespace lattn::cuda::ptx
