#include "gpu_emulator/scheduler.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <new>
#include <utility>

#include "gpu_emulator/cuda_on_host.h"
#include "gpu_emulator/emulator.h"

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/common_interface_defs.h>
#endif

uint3 threadIdx;

namespace lattn::emulator {
namespace {

constexpr int kWarp = 32;

Scheduler* active = nullptr;

// Unwinds the stack of a thread after another one has failed.
struct Unwind {};

std::size_t page_bytes() {
    static const std::size_t bytes = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
    return bytes;
}

// A context that begins with entry() on a stack of its own.
void prepare(ucontext_t& context, char* stack, void (*entry)()) {
    getcontext(&context);
    context.uc_stack.ss_sp = stack;
    context.uc_stack.ss_size = Stacks::bytes();
    context.uc_link = nullptr;
    makecontext(&context, entry, 0);
}

} // namespace

Stacks::Stacks(int count) : memory_bytes_(static_cast<std::size_t>(count) * (bytes() + page_bytes())) {
    void* memory =
        mmap(nullptr, memory_bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) throw std::bad_alloc();
    memory_ = static_cast<char*>(memory);
    for (int i = 0; i < count; ++i) mprotect(bottom(i) - page_bytes(), page_bytes(), PROT_NONE);
}

Stacks::~Stacks() {
    munmap(memory_, memory_bytes_);
}

char* Stacks::bottom(int index) const {
    return memory_ + static_cast<std::size_t>(index) * (bytes() + page_bytes()) + page_bytes();
}

std::size_t Stacks::bytes() {
    return 256 * 1024;
}

Scheduler::Scheduler(int threads, const Stacks& stacks, std::mt19937_64& random, Surroundings& surroundings)
    : threads_(threads),
      random_(random),
      surroundings_(surroundings),
      fibers_(static_cast<std::size_t>(threads) + 1),
      running_(threads),
      came_from_(threads) {
    order_ = static_cast<Order>(random_() % 3);
    const uint64_t salt = random_();
    for (int thread = 0; thread < threads; ++thread) {
        const int unit = order_ == Order::kWarps ? thread / kWarp : thread;
        priorities_.push_back(static_cast<int64_t>(std::mt19937_64(salt + static_cast<uint64_t>(unit))() >> 1));
    }
    for (int thread = 0; thread < threads; ++thread) {
        Fiber& fiber = fibers_[thread];
        fiber.stack_bottom = stacks.bottom(thread);
        fiber.stack_bytes = Stacks::bytes();
        prepare(fiber.context, stacks.bottom(thread), &Scheduler::enter);
        make_ready(thread);
    }
}

void Scheduler::run(const std::function<void()>& body) {
    body_ = &body;
    Scheduler* const outer = std::exchange(active, this);
    try {
        transfer(choose());
    } catch (...) { // of surroundings, before the first thread
        failure_ = std::current_exception();
    }
    if (failure_) unwind_others();
    active = outer;
    if (failure_) std::rethrow_exception(failure_);
}

void Scheduler::wake(Wait::For what, uint32_t id) {
    for (int thread = 0; thread < threads_; ++thread) {
        const Fiber& fiber = fibers_[thread];
        if (fiber.state == Fiber::State::kBlocked && fiber.wait.what == what && fiber.wait.id == id) make_ready(thread);
    }
}

void Scheduler::yield() {
    --lowest_priority_;
    const int first = order_ == Order::kWarps ? running_ / kWarp * kWarp : running_;
    const int end = order_ == Order::kWarps ? first + kWarp : first + 1;
    std::fill(priorities_.begin() + first, priorities_.begin() + end, lowest_priority_);
    make_ready(running_);
    suspend();
}

void Scheduler::enter() {
    active->arrived();
    active->run_body();
}

void Scheduler::run_body() {
    const int thread = running_;
    int next = threads_;
    try {
        (*body_)();
        surroundings_.thread_ended(thread);
    } catch (const Unwind&) {
    } catch (...) {
        if (!failure_) failure_ = std::current_exception();
    }
    fibers_[thread].state = Fiber::State::kEnded;
    ++ended_;
    try {
        next = choose();
    } catch (...) {
        failure_ = std::current_exception();
    }
    transfer(next, true);
}

void Scheduler::suspend() {
    Fiber& fiber = fibers_[running_];
    const int thread = running_;
    if (fiber.wait.what != Wait::For::kNothing) fiber.state = Fiber::State::kBlocked;
    const int next = choose();
    if (next != thread) transfer(next);
    if (unwinding_) throw Unwind();
}

// The thread to run next, or run() itself.
int Scheduler::choose() {
    if (failure_) return threads_;
    for (;;) {
        surroundings_.tick();
        if (!ready_.empty()) return take_ready();
        if (ended_ == threads_) return threads_;
        if (!surroundings_.progress()) throw Error(deadlock());
    }
}

int Scheduler::take_ready() {
    std::swap(ready_[random_() % ready_.size()], ready_.back());
    if (order_ != Order::kUniform) {
        const auto lower = [&](int a, int b) { return priorities_[a] < priorities_[b]; };
        std::swap(*std::max_element(ready_.begin(), ready_.end(), lower), ready_.back());
    }
    const int thread = ready_.back();
    ready_.pop_back();
    return thread;
}

void Scheduler::transfer(int to, [[maybe_unused]] bool ended) {
    Fiber& from_fiber = fibers_[running_];
    Fiber& to_fiber = fibers_[to];
    came_from_ = std::exchange(running_, to);
    if (to < threads_) {
        to_fiber.started = true;
        threadIdx.x = static_cast<unsigned>(to);
    }
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_start_switch_fiber(ended ? nullptr : &from_fiber.sanitizer_stack, to_fiber.stack_bottom,
                                   to_fiber.stack_bytes);
#endif
    swapcontext(&from_fiber.context, &to_fiber.context);
    arrived();
}

// On the stack of the fiber that runs now.
void Scheduler::arrived() {
#ifdef __SANITIZE_ADDRESS__
    Fiber& from = fibers_[came_from_];
    const void* bottom = nullptr;
    std::size_t bytes = 0;
    __sanitizer_finish_switch_fiber(fibers_[running_].sanitizer_stack, &bottom, &bytes);
    if (came_from_ == threads_) {
        from.stack_bottom = bottom;
        from.stack_bytes = bytes;
    }
#endif
}

void Scheduler::make_ready(int thread) {
    fibers_[thread].state = Fiber::State::kReady;
    ready_.push_back(thread);
}

void Scheduler::unwind_others() {
    unwinding_ = true;
    for (int thread = 0; thread < threads_; ++thread) {
        if (fibers_[thread].started && fibers_[thread].state != Fiber::State::kEnded) transfer(thread);
    }
}

std::string Scheduler::deadlock() const {
    std::string text = "deadlock: every thread waits and nothing is under way";
    for (int first = 0; first < threads_;) {
        const Fiber& fiber = fibers_[first];
        const bool ended = fiber.state == Fiber::State::kEnded;
        const auto same = [&](const Fiber& other) {
            return (other.state == Fiber::State::kEnded) == ended && (ended || other.wait == fiber.wait);
        };
        int end = first + 1;
        while (end < threads_ && end % kWarp != 0 && same(fibers_[end])) ++end;
        text += "\n  warp " + std::to_string(first / kWarp) + ", lanes " + std::to_string(first % kWarp) + " to " +
                std::to_string((end - 1) % kWarp) + ": " +
                (ended ? std::string("ended") : surroundings_.describe(fiber.wait));
        first = end;
    }
    return text;
}

} // namespace lattn::emulator
