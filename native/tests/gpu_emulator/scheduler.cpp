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

} // namespace

Stacks::Stacks(int count) : count_(count), memory_bytes_(static_cast<std::size_t>(count) * (bytes() + page_bytes())) {
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
      states_(static_cast<std::size_t>(threads)),
      fibers_(static_cast<std::size_t>(threads) + 1),
      running_(threads),
      came_from_(threads) {
    getcontext(&start_);
    order_ = static_cast<Order>(random_() % 3);
    for (int thread = 0; thread < threads; ++thread) {
        const bool as_the_one_before = order_ == Order::kWarps && thread % kWarp != 0;
        priorities_.push_back(as_the_one_before ? priorities_.back() : static_cast<int64_t>(random_() >> 1));
        fibers_[thread].stack_bottom = stacks.bottom(thread);
        fibers_[thread].stack_bytes = Stacks::bytes();
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
        const State& state = states_[thread];
        if (state.is == State::Is::kBlocked && state.wait.what == what && state.wait.id == id) make_ready(thread);
    }
}

void Scheduler::yield() {
    --lowest_priority_;
    const int first = order_ == Order::kWarps ? running_ / kWarp * kWarp : running_;
    const int end = order_ == Order::kWarps ? first + kWarp : first + 1;
    std::fill(priorities_.begin() + first, priorities_.begin() + end, lowest_priority_);
    if (order_ == Order::kWarps) {
        for (Ready& ready : ready_) ready.priority = priorities_[ready.thread];
        std::make_heap(ready_.begin(), ready_.end());
    }
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
    states_[thread].is = State::Is::kEnded;
    ++ended_;
    try {
        next = choose();
    } catch (...) {
        failure_ = std::current_exception();
    }
    transfer(next, true);
}

void Scheduler::suspend() {
    const int thread = running_;
    State& state = states_[thread];
    if (state.wait.what != Wait::For::kNothing) state.is = State::Is::kBlocked;
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
    if (order_ == Order::kUniform)
        std::swap(ready_[random_() % ready_.size()], ready_.back());
    else
        std::pop_heap(ready_.begin(), ready_.end());
    const int thread = ready_.back().thread;
    ready_.pop_back();
    return thread;
}

void Scheduler::transfer(int to, [[maybe_unused]] bool ended) {
    Fiber& from_fiber = fibers_[running_];
    Fiber& to_fiber = fibers_[to];
    came_from_ = std::exchange(running_, to);
    if (to < threads_) threadIdx.x = static_cast<unsigned>(to);
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_start_switch_fiber(ended ? nullptr : &from_fiber.sanitizer_stack, to_fiber.stack_bottom,
                                   to_fiber.stack_bytes);
#endif
    // swapcontext() does the same with a system call each time.
    if (_setjmp(from_fiber.resume) == 0) {
        if (to < threads_ && !to_fiber.started) start(to_fiber);
        _longjmp(to_fiber.resume, 1);
    }
    arrived();
}

// Begins enter() on the fiber's stack.
void Scheduler::start(Fiber& fiber) {
    fiber.started = true;
    start_.uc_stack.ss_sp = const_cast<void*>(fiber.stack_bottom);
    start_.uc_stack.ss_size = fiber.stack_bytes;
    start_.uc_link = nullptr;
    makecontext(&start_, &Scheduler::enter, 0);
    setcontext(&start_);
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
    states_[thread].is = State::Is::kReady;
    ready_.push_back({priorities_[thread], static_cast<uint32_t>(random_()), thread});
    if (order_ != Order::kUniform) std::push_heap(ready_.begin(), ready_.end());
}

void Scheduler::unwind_others() {
    unwinding_ = true;
    for (int thread = 0; thread < threads_; ++thread) {
        if (fibers_[thread].started && states_[thread].is != State::Is::kEnded) transfer(thread);
    }
}

std::string Scheduler::deadlock() const {
    std::string text = "deadlock: every thread waits and nothing is under way";
    for (int first = 0; first < threads_;) {
        const State& state = states_[first];
        const bool ended = state.is == State::Is::kEnded;
        const auto same = [&](const State& other) {
            return (other.is == State::Is::kEnded) == ended && (ended || other.wait == state.wait);
        };
        int end = first + 1;
        while (end < threads_ && end % kWarp != 0 && same(states_[end])) ++end;
        text += "\n  warp " + std::to_string(first / kWarp) + ", lanes " + std::to_string(first % kWarp) + " to " +
                std::to_string((end - 1) % kWarp) + ": " +
                (ended ? std::string("ended") : surroundings_.describe(state.wait));
        first = end;
    }
    return text;
}

} // namespace lattn::emulator
