// Second streams beside those of callers, kept for the life of the process.
#pragma once

#include <mutex>
#include <thread>
#include <vector>

#include "cuda/host/driver.h"

namespace lattn::cuda {

class Device;

// Of one device. Each belongs to the stream and the thread that it was first forked from. A thread that frees what was
// made on its side stream has queued all that reads it by then, and forks anew later: so an allocator may reuse the
// memory in the order of the side stream. Another thread's fork could come between.
class SideStreams {
public:
    Status fork(const Device& device, CUstream stream, CUstream& side);
    Status join(const Device& device, CUstream stream, CUstream side);

private:
    struct Side {
        CUstream of;
        std::thread::id by;
        CUstream stream; // NULL until it could be created, as the events
        CUevent forked;
        CUevent joined;
        bool in_use;
    };

    // A failure loses nothing: the next fork creates what is missing.
    static Status create_missing(const Device& device, Side& side);

    std::mutex mutex_;
    std::vector<Side> sides_;
};

} // namespace lattn::cuda
