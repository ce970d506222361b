#include "gpu_emulator/thread_copies.h"

#include <cstring>

#include "gpu_emulator/block.h"

namespace lattn::emulator {
namespace {

constexpr uint32_t kBytes = 16;

unsigned char* destination_of(uint32_t address) {
    return block().shared.at(address, kBytes, kBytes, "cp.async");
}

} // namespace

void ThreadCopies::Copy::run() const {
    unsigned char* to = destination_of(destination);
    std::memset(to, 0, kBytes);
    std::memcpy(to, source, source_bytes);
}

void ThreadCopies::copy(uint32_t destination, const void* source, uint32_t source_bytes) {
    if (source_bytes > kBytes) fail("cp.async: " + std::to_string(source_bytes) + " bytes");
    if (reinterpret_cast<uintptr_t>(source) % kBytes != 0) fail("cp.async: the source is not aligned");
    const Copy copy{destination, source, source_bytes};
    if (block().acts_early()) {
        copy.run();
        return;
    }
    std::memset(destination_of(destination), 0xff, kBytes);
    open_.push_back(copy);
}

void ThreadCopies::commit() {
    committed_.push_back(std::move(open_));
    open_.clear();
}

void ThreadCopies::wait(int pending_groups) {
    while (committed_.size() > static_cast<std::size_t>(pending_groups)) {
        for (const Copy& copy : committed_.front()) copy.run();
        committed_.pop_front();
    }
}

} // namespace lattn::emulator
