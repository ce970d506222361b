#include "gpu_emulator/block.h"

#include <deque>
#include <utility>

uint3 blockIdx;
dim3 blockDim;
dim3 gridDim;

namespace lattn::emulator {
namespace {

constexpr int kRegisters = 64 * 1024;
constexpr int kMaxThreads = 1024;

Block* running = nullptr;

// Registers per thread of a launch of so many threads that names them as its bounds.
int registers_of(int threads) {
    return min(kRegisters / threads / 8 * 8, 248);
}

} // namespace

Block::Block(const Config& config, int index, const Stacks& stacks, PriorKernel& prior)
    : random(config.seed * 0x9e37'79b9'7f4a'7c15u + static_cast<uint64_t>(index)),
      threads(config.threads, stacks, random, *this),
      shared(config.shared_base, config.shared_bytes, config.threads),
      copies(config.threads),
      timing_(config.timing),
      prior_(prior),
      thread_copies_(static_cast<std::size_t>(config.threads)) {
    for (int warp = 0; warp * 32 < config.threads; ++warp) warps_.emplace_back(warp);
    for (int group = 0; group * Warpgroup::kThreads < config.threads; ++group)
        warpgroups_.emplace_back(group, registers_of(config.threads));
    running = this;
    blockIdx = {static_cast<unsigned>(index), 0, 0};
}

Block::~Block() {
    running = nullptr;
}

void Block::run(const std::function<void(char* shared)>& kernel) {
    threads.run([&] { kernel(shared.begin()); });
    for (const Warpgroup& group : warpgroups_) group.check_ended();
    copies.finish();
    shared.check_guards();
}

bool Block::acts_early() {
    return timing_ == Timing::kEarly || (timing_ == Timing::kRandom && random() % 2 == 0);
}

void Block::maybe_yield() {
    if (random() % 8 == 0) threads.yield();
}

void Block::sync_named(int id, int count) {
    if (id < 0 || id > 15) fail("bar.sync: barrier " + std::to_string(id) + "; 0 to 15 exist");
    if (count <= 0 || count % 32 != 0 || count > threads.threads())
        fail("bar.sync: " + std::to_string(count) + " threads, which is not a multiple of 32 up to the block's");
    NamedBarrier& barrier = named_barriers_[id];
    if (barrier.present > 0 && barrier.threads != count)
        fail("bar.sync: barrier " + std::to_string(id) + " for " + std::to_string(count) +
             " threads while others wait for " + std::to_string(barrier.threads));
    barrier.threads = count;
    const auto number = static_cast<uint32_t>(id);
    if (++barrier.present == count) {
        barrier.present = 0;
        ++barrier.uses;
        threads.wake(Wait::For::kNamedBarrier, number);
        return;
    }
    threads.wait({Wait::For::kNamedBarrier, number, 0}, [&, use = barrier.uses] { return barrier.uses != use; });
}

void Block::wait_for_prior_kernel() {
    threads.wait({Wait::For::kPriorKernel, 0, 0}, [&] { return prior_.is_complete(); });
}

// Something that is under way is done now and then.
void Block::tick() {
    if (timing_ != Timing::kRandom || random() % 32 != 0) return;
    const std::size_t choice = random() % (warpgroups_.size() + 1);
    if (choice < warpgroups_.size())
        warpgroups_[choice].progress();
    else
        copies.progress();
}

// One kind of work after the other, from a random one on.
bool Block::progress() {
    const std::size_t kinds = warpgroups_.size() + 1;
    const std::size_t first = random() % kinds;
    for (std::size_t i = 0; i < kinds; ++i) {
        const std::size_t kind = (first + i) % kinds;
        if (kind < warpgroups_.size() ? warpgroups_[kind].progress_wanted() : copies.progress()) return true;
    }
    if (prior_.is_complete()) return false;
    prior_.complete();
    threads.wake(Wait::For::kPriorKernel, 0);
    return true;
}

void Block::thread_ended(int thread) {
    warpgroups_[static_cast<std::size_t>(thread / Warpgroup::kThreads)].thread_ended(thread);
    warps_[static_cast<std::size_t>(thread / 32)].lane_ended(thread % 32);
}

std::string Block::describe(const Wait& wait) const {
    switch (wait.what) {
        case Wait::For::kMbarrier:
            return mbarriers.describe(wait.id, wait.detail);
        case Wait::For::kNamedBarrier: {
            const NamedBarrier& barrier = named_barriers_[wait.id];
            return "barrier " + std::to_string(wait.id) + " (" + std::to_string(barrier.present) + " of " +
                   std::to_string(barrier.threads) + " threads are there)";
        }
        case Wait::For::kWarp:
            return Warp::describe(static_cast<Warp::Operation>(wait.detail)) + " of the warp";
        case Wait::For::kProducts:
            return "wgmma products that other threads of warpgroup " + std::to_string(wait.id) + " have not issued";
        case Wait::For::kRegisters:
            return std::to_string(wait.detail) + " registers per thread (" + std::to_string(free_registers) +
                   " are free)";
        case Wait::For::kPriorKernel:
            return "the kernel before this one";
        case Wait::For::kNothing:
            break;
    }
    return "nothing";
}

Block& block() {
    if (running == nullptr) throw Error("a device function was called outside of a kernel");
    return *running;
}

void fail(const std::string& what) {
    std::string where;
    if (running != nullptr) {
        where = "block " + std::to_string(blockIdx.x);
        const Scheduler& threads = running->threads;
        if (threads.inside_thread()) {
            const int thread = threads.current();
            where += ", thread " + std::to_string(thread) + " (warp " + std::to_string(thread / 32) + ", lane " +
                     std::to_string(thread % 32) + ")";
        }
        where += ": ";
    }
    throw Error(where + what);
}

// The block that waits for it is put aside meanwhile.
void PriorKernel::complete() {
    if (is_complete()) return;
    const auto work = std::exchange(work_, nullptr);
    struct Interrupted {
        Block* const block = std::exchange(running, nullptr);
        const uint3 thread_index = threadIdx, block_index = blockIdx;
        const dim3 block_dim = blockDim, grid_dim = gridDim;

        ~Interrupted() {
            running = block;
            threadIdx = thread_index;
            blockIdx = block_index;
            blockDim = block_dim;
            gridDim = grid_dim;
        }
    } const interrupted;
    work();
}

void run(const Config& config, const std::function<void(char* shared)>& kernel, const std::function<void()>& prior) {
    if (running != nullptr) throw Error("run() inside a kernel");
    if (config.threads < 32 || config.threads > kMaxThreads || config.threads % 32 != 0)
        throw Error(std::to_string(config.threads) + " threads, which is not a multiple of 32 up to 1024");
    // Kept for the next launch: mapping them and their first use cost more than a small kernel. One for each of the
    // kernels that interrupt one another.
    static std::deque<Stacks> all_stacks;
    static std::size_t depth = 0;
    struct Deeper {
        Deeper() { ++depth; }
        ~Deeper() { --depth; }
    } const deeper;
    if (all_stacks.size() < depth) all_stacks.emplace_back(kMaxThreads);
    const Stacks& stacks = all_stacks[depth - 1];
    PriorKernel prior_kernel(prior);
    gridDim = dim3(static_cast<unsigned>(config.blocks));
    blockDim = dim3(static_cast<unsigned>(config.threads));
    for (int index = 0; index < config.blocks; ++index) Block(config, index, stacks, prior_kernel).run(kernel);
    prior_kernel.complete();
}

} // namespace lattn::emulator
