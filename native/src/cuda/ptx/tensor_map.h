// A tensor map as a kernel takes it, by value in its parameters; filled by the driver on the host.
#pragma once

#include <cstdint>

namespace lattn::cuda::ptx {

struct alignas(64) TensorMap {
    uint64_t words[16];
};

} // namespace lattn::cuda::ptx
