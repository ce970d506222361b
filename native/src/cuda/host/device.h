// A CUDA device: its context, its loaded kernels, launches on it.
#pragma once

#include "cuda/host/driver.h"
#include "cuda/host/kernels.h"

namespace lattn::cuda {

// When a kernel starts. kDuringPrior: as soon as the kernel before it on the stream lets it, see
// ptx/dependent_launch.cuh; it waits itself for what it needs. Compute capability 9.0 and driver 525 or newer.
enum class Start { kAfterPrior, kDuringPrior };

class Device {
public:
    // The device of this ordinal, checked for compute capability >= 8.0; lives as long as the process.
    static Status get(int index, Device*& device);

    // Queues a kernel of the dispatch table on `stream`; `params` is its only parameter. Nothing is launched for an
    // empty grid. cluster_blocks: with kDuringPrior, of a cluster, whose blocks run side by side; divides `blocks`.
    template <typename Params>
    Status launch(int kernel, int64_t blocks, CUstream stream, const Params& params, Start start = Start::kAfterPrior,
                  uint32_t cluster_blocks = 1) {
        return launch_untyped(kernel, blocks, stream, const_cast<Params*>(&params), start, cluster_blocks);
    }

    // 10 * major + minor.
    int compute_capability() const { return compute_capability_; }
    int multiprocessors() const { return multiprocessors_; }
    // kDuringPrior where the device and its driver have it.
    Start earliest_start() const;
    const Driver& driver() const { return *driver_; }

    // Queues a fill with zero bytes.
    Status clear(void* data, uint64_t bytes, CUstream stream);

    // A second stream that goes on from where `stream` is, and the end of its work, which `stream` waits for.
    Status fork(CUstream stream, CUstream& side);
    Status join(CUstream stream, CUstream side);

    Status synchronize();

    // Makes the device's context current for a scope and restores the caller's, which may be none: autograd's threads
    // have none at first.
    class CurrentContext {
    public:
        explicit CurrentContext(const Device& device);
        ~CurrentContext();
        CurrentContext(const CurrentContext&) = delete;
        CurrentContext& operator=(const CurrentContext&) = delete;

        Status status(const char* what) const;

    private:
        const Driver& driver_;
        CUresult result_;
    };

private:
    Status initialize(const Driver& driver, int index);
    Status launch_untyped(int kernel, int64_t blocks, CUstream stream, void* params, Start start,
                          uint32_t cluster_blocks);
    Status get_function(int kernel, CUfunction& function);
    Status check(CUresult result, const char* call, const char* what) const;

    const Driver* driver_ = nullptr;
    CUcontext context_ = nullptr;
    int compute_capability_ = 0;
    int multiprocessors_ = 0;
    struct Loaded;
    Loaded* loaded_ = nullptr;
};

} // namespace lattn::cuda
