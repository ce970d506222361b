// The threads of a block as fibers in one OS thread: one runs until it has to wait, then another one does. Which one is
// random: any that can run in some blocks; in others that of the highest priority, where warps or single threads fall
// behind all others at random moments, so that they are far behind now and then.
#pragma once

#include <setjmp.h>
#include <ucontext.h>

#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <random>
#include <string>
#include <vector>

namespace lattn::emulator {

// What a thread waits for.
struct Wait {
    enum class For { kNothing, kMbarrier, kNamedBarrier, kWarp, kProducts, kRegisters, kPriorKernel };

    For what = For::kNothing;
    uint32_t id = 0;     // of the barrier or group
    uint32_t detail = 0; // parity, number, operation

    bool operator==(const Wait&) const = default;
};

// Stacks of fibers, each above an inaccessible page.
class Stacks {
public:
    explicit Stacks(int count);
    ~Stacks();
    Stacks(const Stacks&) = delete;
    Stacks& operator=(const Stacks&) = delete;

    int count() const { return count_; }
    char* bottom(int index) const;
    static std::size_t bytes();

private:
    int count_;
    std::size_t memory_bytes_;
    char* memory_;
};

class Scheduler {
public:
    // What happens besides the threads.
    class Surroundings {
    public:
        virtual ~Surroundings() = default;
        virtual void tick() = 0;     // before each choice of a thread
        virtual bool progress() = 0; // no thread can run: does something that may change this, or returns false
        virtual void thread_ended(int thread) = 0;
        virtual std::string describe(const Wait& wait) const = 0;
    };

    Scheduler(int threads, const Stacks& stacks, std::mt19937_64& random, Surroundings& surroundings);

    // Calls body() in every thread and returns when all have ended. Throws what one of them threw.
    void run(const std::function<void()>& body);

    bool inside_thread() const { return running_ < threads_; }
    int current() const { return running_; }
    int threads() const { return threads_; }

    // Lets other threads run until ready() holds; it is asked again after each wake() of the same object.
    template <typename Ready>
    void wait(const Wait& wait, Ready ready) {
        while (!ready()) {
            states_[running_].wait = wait;
            suspend();
        }
        states_[running_].wait = {};
    }

    void wake(Wait::For what, uint32_t id);

    // Lets another thread run, and in most blocks all that can.
    void yield();

private:
    enum class Order { kUniform, kWarps, kThreads };

    struct State {
        enum class Is { kReady, kBlocked, kEnded };

        Is is = Is::kReady;
        Wait wait;
    };

    struct Fiber {
        jmp_buf resume;
        bool started = false;
        const void* stack_bottom = nullptr;
        std::size_t stack_bytes = 0;
        void* sanitizer_stack = nullptr;
    };

    // A thread that can run; in some orders ready_ is a heap of them.
    struct Ready {
        int64_t priority;
        uint32_t tie; // among threads of the same priority
        int thread;

        bool operator<(const Ready& other) const {
            return priority != other.priority ? priority < other.priority : tie < other.tie;
        }
    };

    static void enter();
    void run_body();
    void suspend();
    int choose();
    int take_ready();
    void transfer(int to, bool ended = false);
    void start(Fiber& fiber);
    void arrived();
    void make_ready(int thread);
    void unwind_others();
    std::string deadlock() const;

    const int threads_;
    std::mt19937_64& random_;
    Surroundings& surroundings_;
    std::vector<State> states_; // of threads
    std::vector<Fiber> fibers_; // of the threads, then run()'s
    std::vector<Ready> ready_;
    ucontext_t start_; // of the thread that starts
    Order order_;
    std::vector<int64_t> priorities_; // of threads
    int64_t lowest_priority_ = 0;
    int running_;
    int came_from_;
    int ended_ = 0;
    const std::function<void()>* body_ = nullptr;
    std::exception_ptr failure_;
    bool unwinding_ = false;
};

} // namespace lattn::emulator
