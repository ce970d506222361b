// A functional emulator of what a kernel needs of the GPU: threads, shared memory, barriers, copies, matrix products of
// warps and warpgroups. Kernels that keep to the functions of ptx/ run on it as they are. It checks results and
// protocol; it says nothing about speed.
#pragma once

#include <cstdint>
#include <functional>
#include <stdexcept>

#include "gpu_emulator/ptx/tensor_map.h"

namespace lattn::emulator {

// A kernel broke a rule of the hardware, or hangs.
class Error : public std::runtime_error {
    using std::runtime_error::runtime_error;
};

// When asynchronous work is done that the kernel has not waited for: kEarly finds buffers that are filled or used too
// late, kLate finds missing waits.
enum class Timing { kEarly, kLate, kRandom };

struct Config {
    int blocks = 1;   // gridDim.x
    int threads = 32; // blockDim.x, a multiple of 32
    uint32_t shared_bytes = 0;
    uint32_t shared_base = 0; // address of the first byte, a multiple of 16: launches promise no more
    Timing timing = Timing::kRandom;
    uint64_t seed = 0; // of the order in which threads run
};

// Runs a kernel block after block: kernel(shared memory) is called for every thread. Throws Error.
//
// prior: what the kernel before this one on the stream still does, run() of it as a rule. It is done when all threads
// that can run wait for it, or when this kernel has ended.
void run(const Config& config, const std::function<void(char* shared)>& kernel,
         const std::function<void()>& prior = {});

// A tensor in memory and the boxes it is copied in; axes from the innermost.
struct TensorLayout {
    void* data;
    int element_bytes;
    int64_t sizes[4];
    int64_t strides_bytes[4]; // the first is that of an element
    int32_t box[4];
    bool swizzled = true; // 128-byte swizzle: rows of the box have 128 bytes
};

// Throws Error where the driver would refuse.
cuda::ptx::TensorMap make_tensor_map(const TensorLayout& layout);

} // namespace lattn::emulator
