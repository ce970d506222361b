// The mbarriers of a block.
#pragma once

#include <cstdint>
#include <string>
#include <unordered_map>

namespace lattn::emulator {

class Mbarriers {
public:
    void init(uint32_t address, uint32_t arrivals);
    void fence_init();
    void arrive(uint32_t address);
    void expect(uint32_t address, uint32_t bytes);
    void wait(uint32_t address, uint32_t parity);

    // The copy engine's part: at issue, and when bytes have come.
    void check_usable_by_copies(uint32_t address);
    void complete(uint32_t address, uint32_t bytes);

    std::string describe(uint32_t address, uint32_t parity) const;

private:
    struct State {
        uint32_t arrivals;
        uint32_t pending;
        int64_t bytes = 0; // outstanding in this phase; negative when they come before they are expected
        uint64_t phase = 0;
        int initializer;
        bool fenced = false;
    };

    State& get(uint32_t address, const char* user);
    void end_phase_if_complete(uint32_t address, State& state);

    std::unordered_map<uint32_t, State> states_;
};

} // namespace lattn::emulator
