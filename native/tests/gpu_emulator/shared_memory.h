// Shared memory of a block. It reads as NaN until it is written.
#pragma once

#include <cstdint>
#include <vector>

namespace lattn::emulator {

class SharedMemory {
public:
    SharedMemory(uint32_t base, uint32_t bytes, int threads);

    char* begin() { return reinterpret_cast<char*>(zero_ + base_); }
    uint32_t address_of(const void* pointer) const;

    // The memory at an address that has to be inside and aligned; `user` names the access in errors.
    unsigned char* at(uint32_t address, uint32_t bytes, uint32_t alignment, const char* user);

    // Sets 16 bytes as an ordinary write of a thread, which the copy engine and the matrix units see only after the
    // thread's fence.
    void write_ordinary(uint32_t address, const void* source, int thread, const char* user);
    void fence(int thread);

    // The 16 bytes at an address as the copy engine and the matrix units access them.
    unsigned char* at_async(uint32_t address, const char* user);

    // Throws where something was written beside the memory.
    void check_guards() const;

private:
    uint32_t base_;
    uint32_t end_;
    std::vector<unsigned char> storage_;
    unsigned char* zero_;                         // address 0
    std::vector<int> unfenced_writer_;            // per 16 bytes: thread + 1, or 0
    std::vector<std::vector<uint32_t>> unfenced_; // per thread: what it wrote, in units of 16 bytes
};

// The address after the 128-byte swizzle.
inline uint32_t swizzle_128(uint32_t address) {
    return address ^ (address >> 3 & 0x70);
}

} // namespace lattn::emulator
