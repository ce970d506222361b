// Second streams beside those of callers, kept for the life of the process.
#pragma once

#include <mutex>
#include <vector>

#include "cuda/host/driver.h"

namespace lattn::cuda {

class Device;

// Of one device. Each belongs to the stream that it was first forked from: what an allocator reuses in the order of a
// side stream is reused in the order of that stream too.
class SideStreams {
public:
    Status fork(const Device& device, CUstream stream, CUstream& side);
    Status join(const Device& device, CUstream stream, CUstream side);

private:
    struct Side {
        CUstream of;
        CUstream stream;
        CUevent forked;
        CUevent joined;
        bool in_use;
    };

    Status create(const Device& device, CUstream of, Side& side);

    std::mutex mutex_;
    std::vector<Side> sides_;
};

} // namespace lattn::cuda
