// Copies of 16 bytes from global to shared memory by one thread (cp.async).
#pragma once

#include <cstdint>
#include <deque>
#include <vector>

namespace lattn::emulator {

class ThreadCopies {
public:
    void copy(uint32_t destination, const void* source, uint32_t source_bytes);
    void commit();
    void wait(int pending_groups);

private:
    struct Copy {
        uint32_t destination;
        const void* source;
        uint32_t source_bytes;

        void run() const;
    };

    std::vector<Copy> open_;
    std::deque<std::vector<Copy>> committed_;
};

} // namespace lattn::emulator
