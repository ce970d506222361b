// The block that runs: its threads and what they share.
#pragma once

#include <deque>
#include <functional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "gpu_emulator/copy_engine.h"
#include "gpu_emulator/cuda_on_host.h"
#include "gpu_emulator/emulator.h"
#include "gpu_emulator/mbarriers.h"
#include "gpu_emulator/scheduler.h"
#include "gpu_emulator/shared_memory.h"
#include "gpu_emulator/thread_copies.h"
#include "gpu_emulator/warp.h"
#include "gpu_emulator/warpgroup.h"

namespace lattn::emulator {

// The kernel before the one that runs.
class PriorKernel {
public:
    explicit PriorKernel(std::function<void()> work) : work_(std::move(work)) {}

    bool is_complete() const { return !work_; }
    void complete();

private:
    std::function<void()> work_;
};

class Block final : Scheduler::Surroundings {
public:
    Block(const Config& config, int index, const Stacks& stacks, PriorKernel& prior);
    ~Block() override;
    Block(const Block&) = delete;
    Block& operator=(const Block&) = delete;

    void run(const std::function<void(char* shared)>& kernel);

    // Whether something asynchronous is done as soon as it is issued.
    bool acts_early();

    // Whether something asynchronous is done only when no thread can run.
    bool acts_late() const { return timing_ == Timing::kLate; }

    // Sometimes lets another thread run: called where threads act on each other.
    void maybe_yield();

    void sync_named(int id, int threads);

    void wait_for_prior_kernel();

    Warp& warp() { return warps_[threads.current() / 32]; }
    Warpgroup& warpgroup() { return warpgroups_[threads.current() / Warpgroup::kThreads]; }

    ThreadCopies& thread_copies() { return thread_copies_[static_cast<std::size_t>(threads.current())]; }

    std::mt19937_64 random;
    Scheduler threads;
    SharedMemory shared;
    Mbarriers mbarriers;
    CopyEngine copies;
    int free_registers = 0; // given and not taken

private:
    struct NamedBarrier {
        int threads = 0;
        int present = 0;
        uint32_t uses = 0;
    };

    void tick() override;
    bool progress() override;
    void thread_ended(int thread) override;
    std::string describe(const Wait& wait) const override;

    const Timing timing_;
    PriorKernel& prior_;
    std::vector<Warp> warps_;
    std::vector<ThreadCopies> thread_copies_;
    std::deque<Warpgroup> warpgroups_;
    NamedBarrier named_barriers_[16];
};

Block& block();

// Throws Error with the thread that runs.
[[noreturn]] void fail(const std::string& what);

} // namespace lattn::emulator
