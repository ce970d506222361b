// What four consecutive warps do together: asynchronous products, and moving registers.
//
// The threads need not run in step: each walks through the group's list of steps, and the first that comes to a step
// writes what the others must agree with. Accumulators hold NaN from the issue of a product until the thread's wait for
// it, whenever the product itself is done.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "gpu_emulator/instructions.h"

namespace lattn::emulator {

class Warpgroup {
public:
    static constexpr int kThreads = 128;

    Warpgroup(int index, int registers_per_thread) : index_(index), registers_(registers_per_thread) {}

    void multiply(const WgmmaShape& shape, float* acc, const uint32_t (&a)[4]);
    void fence();
    void commit();
    void wait(int pending_groups);
    void give_registers(int count);
    void take_registers(int count);

    // Does the oldest product that all threads have issued; false if there is none.
    bool progress();

    // Does the products that threads wait for, as far as all threads have issued them; false if there are none.
    bool progress_wanted();

    void thread_ended(int thread);
    void check_ended() const;

private:
    static constexpr int kRows = 64;
    static constexpr int kDepth = 16;
    static constexpr int kMaxColumns = 128;

    struct Tile {
        float values[kRows][kMaxColumns];
    };

    struct Product {
        Product(const WgmmaShape& shape_, int group_) : shape(shape_), group(group_) {}

        const WgmmaShape shape;
        const int group;
        int issued = 0; // threads
        float a[kRows][kDepth];
        std::shared_ptr<Tile> acc;
    };

    struct Step {
        enum class Kind { kMultiply, kFence, kCommit, kWait, kGiveRegisters, kTakeRegisters };

        Kind kind;
        int number; // of kWait and the registers
        std::shared_ptr<Product> product;
        int threads = 0; // that have done it
    };

    // Accumulators of a thread that products write.
    struct InFlight {
        float* acc;
        int count;
        std::shared_ptr<Tile> tile;
        int last_group;
    };

    struct Thread {
        int64_t steps = 0;
        int groups = 0; // committed
        bool fenced = false;
        std::vector<InFlight> in_flight;
    };

    std::shared_ptr<Product> next_step(Step::Kind kind, int number, const WgmmaShape* shape);
    std::shared_ptr<Tile> accumulators(const WgmmaShape& shape, float* acc, const Product& product);
    void deliver(const InFlight& accumulators) const;
    bool is_issued(int groups) const;
    bool finish(int groups);
    static void execute(Product& product);
    static std::string describe(Step::Kind kind);
    Thread& self();
    int index_in_group() const;

    int index_;
    int registers_; // per thread
    Thread threads_[kThreads];
    std::deque<Step> steps_; // that not all threads have done
    int64_t first_step_ = 0;
    int wanted_groups_ = 0;                         // that threads wait for
    std::deque<std::shared_ptr<Product>> products_; // that are not done
};

} // namespace lattn::emulator
