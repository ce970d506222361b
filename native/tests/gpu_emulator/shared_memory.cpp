#include "gpu_emulator/shared_memory.h"

#include <algorithm>
#include <cstring>
#include <string>

#include "gpu_emulator/block.h"

namespace lattn::emulator {
namespace {

constexpr uint32_t kGuardBytes = 1024; // also the alignment of address 0
constexpr unsigned char kGuard = 0xa5;
constexpr uint32_t kMaxBytes = 227 * 1024;

} // namespace

SharedMemory::SharedMemory(uint32_t base, uint32_t bytes, int threads)
    : base_(base),
      end_(base + bytes),
      storage_(end_ + 3 * std::size_t{kGuardBytes}, kGuard),
      unfenced_writer_(end_ / 16 + 1),
      unfenced_(static_cast<std::size_t>(threads)) {
    if (base % 16 != 0) throw Error("shared_base = " + std::to_string(base) + " is not a multiple of 16");
    if (bytes > kMaxBytes) throw Error(std::to_string(bytes) + " bytes of shared memory; a block has at most 232448");
    const auto address = reinterpret_cast<uintptr_t>(storage_.data());
    zero_ = storage_.data() + (kGuardBytes - address % kGuardBytes) % kGuardBytes + kGuardBytes;
    std::memset(zero_ + base_, 0xff, bytes);
}

uint32_t SharedMemory::address_of(const void* pointer) const {
    const auto first = reinterpret_cast<uintptr_t>(zero_ + base_);
    const auto address = reinterpret_cast<uintptr_t>(pointer);
    if (address < first || address - first >= end_ - base_)
        fail("shared_address of a pointer that is not into shared memory");
    return base_ + static_cast<uint32_t>(address - first);
}

unsigned char* SharedMemory::at(uint32_t address, uint32_t bytes, uint32_t alignment, const char* user) {
    if (address < base_ || address > end_ || bytes > end_ - address)
        fail(std::string(user) + ": " + std::to_string(bytes) + " bytes at " + std::to_string(address) +
             " are not in shared memory, which is " + std::to_string(base_) + " to " + std::to_string(end_));
    if (address % alignment != 0)
        fail(std::string(user) + ": address " + std::to_string(address) + " is not a multiple of " +
             std::to_string(alignment));
    return zero_ + address;
}

void SharedMemory::write_ordinary(uint32_t address, const void* source, int thread, const char* user) {
    std::memcpy(at(address, 16, 16, user), source, 16);
    unfenced_writer_[address / 16] = thread + 1;
    unfenced_[thread].push_back(address / 16);
}

void SharedMemory::fence(int thread) {
    for (const uint32_t unit : unfenced_[thread]) {
        if (unfenced_writer_[unit] == thread + 1) unfenced_writer_[unit] = 0;
    }
    unfenced_[thread].clear();
}

unsigned char* SharedMemory::at_async(uint32_t address, const char* user) {
    unsigned char* memory = at(address, 16, 16, user);
    if (const int writer = unfenced_writer_[address / 16]; writer != 0)
        fail(std::string(user) + ": thread " + std::to_string(writer - 1) + " wrote address " +
             std::to_string(address) + " and has not called fence_async_shared() since");
    return memory;
}

void SharedMemory::check_guards() const {
    const auto intact = [](const unsigned char* first, const unsigned char* end) {
        return std::all_of(first, end, [](unsigned char byte) { return byte == kGuard; });
    };
    if (!intact(storage_.data(), zero_ + base_)) fail("bytes before shared memory were written");
    if (!intact(zero_ + end_, storage_.data() + storage_.size())) fail("bytes after shared memory were written");
}

} // namespace lattn::emulator
