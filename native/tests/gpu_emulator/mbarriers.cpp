#include "gpu_emulator/mbarriers.h"

#include <cstring>

#include "gpu_emulator/block.h"

namespace lattn::emulator {
namespace {

constexpr uint32_t kMaxArrivals = (1u << 20) - 1;
constexpr int64_t kMaxBytes = (1 << 20) - 1;

// What the memory of an initialised barrier holds, so that writes over it are noticed.
uint64_t mark(uint32_t address) {
    return 0x7262'6d00'0000'0000u | address;
}

} // namespace

void Mbarriers::init(uint32_t address, uint32_t arrivals) {
    unsigned char* memory = block().shared.at(address, 8, 8, "mbarrier.init");
    if (arrivals < 1 || arrivals > kMaxArrivals)
        fail("mbarrier.init: " + std::to_string(arrivals) + " arrivals; 1 to 1048575 are allowed");
    if (states_.contains(address)) fail("mbarrier.init: the one at " + std::to_string(address) + " is in use");
    State state{};
    state.arrivals = state.pending = arrivals;
    state.initializer = block().threads.current();
    states_.emplace(address, state);
    const uint64_t word = mark(address);
    std::memcpy(memory, &word, sizeof(word));
}

void Mbarriers::fence_init() {
    for (auto& [address, state] : states_) {
        if (state.initializer == block().threads.current()) state.fenced = true;
    }
}

void Mbarriers::arrive(uint32_t address) {
    State& state = get(address, "mbarrier.arrive");
    if (state.pending == 0)
        fail("mbarrier.arrive: more than the " + std::to_string(state.arrivals) +
             " arrivals of a phase at the one at " + std::to_string(address));
    --state.pending;
    end_phase_if_complete(address, state);
}

void Mbarriers::expect(uint32_t address, uint32_t bytes) {
    State& state = get(address, "mbarrier.expect_tx");
    state.bytes += bytes;
    if (bytes > kMaxBytes || state.bytes > kMaxBytes)
        fail("mbarrier.expect_tx: more than 1048575 bytes outstanding at the one at " + std::to_string(address));
}

void Mbarriers::wait(uint32_t address, uint32_t parity) {
    const State& state = get(address, "mbarrier.try_wait");
    if (parity > 1) fail("mbarrier.try_wait: parity " + std::to_string(parity));
    block().threads.wait({Wait::For::kMbarrier, address, parity}, [&] { return state.phase % 2 != parity; });
}

void Mbarriers::check_usable_by_copies(uint32_t address) {
    if (!get(address, "load_box").fenced)
        fail("load_box: fence_mbarrier_init() was not called after the mbarrier at " + std::to_string(address) +
             " was initialised");
}

void Mbarriers::complete(uint32_t address, uint32_t bytes) {
    State& state = get(address, "load_box");
    state.bytes -= bytes;
    if (state.bytes < -kMaxBytes)
        fail("load_box: more than 1048575 bytes came that the mbarrier at " + std::to_string(address) +
             " does not expect");
    end_phase_if_complete(address, state);
}

std::string Mbarriers::describe(uint32_t address, uint32_t parity) const {
    const State& state = states_.at(address);
    return "mbarrier at " + std::to_string(address) + ", parity " + std::to_string(parity) + " (in phase " +
           std::to_string(state.phase) + ", " + std::to_string(state.pending) + " of " +
           std::to_string(state.arrivals) + " arrivals and " + std::to_string(state.bytes) + " bytes outstanding)";
}

Mbarriers::State& Mbarriers::get(uint32_t address, const char* user) {
    const unsigned char* memory = block().shared.at(address, 8, 8, user);
    const auto found = states_.find(address);
    if (found == states_.end()) fail(std::string(user) + ": no mbarrier at " + std::to_string(address));
    const uint64_t word = mark(address);
    if (std::memcmp(memory, &word, sizeof(word)) != 0)
        fail(std::string(user) + ": the mbarrier at " + std::to_string(address) + " was overwritten");
    return found->second;
}

void Mbarriers::end_phase_if_complete(uint32_t address, State& state) {
    if (state.pending != 0 || state.bytes != 0) return;
    ++state.phase;
    state.pending = state.arrivals;
    block().threads.wake(Wait::For::kMbarrier, address);
}

} // namespace lattn::emulator
