// Copies of boxes between tensors and shared memory.
#pragma once

#include <cstdint>
#include <deque>
#include <vector>

#include "gpu_emulator/ptx/tensor_map.h"

namespace lattn::emulator {

using cuda::ptx::TensorMap;

class CopyEngine {
public:
    explicit CopyEngine(int threads) : stores_(static_cast<std::size_t>(threads)) {}

    void load(uint32_t shared, const TensorMap& map, uint32_t barrier, const int32_t (&at)[4]);
    void store(const TensorMap& map, uint32_t shared, const int32_t (&at)[4]);
    void commit_stores();
    void wait_stores_read(int pending_groups);
    void wait_stores();

    // Does one copy that is under way, any of them; false if there is none.
    bool progress();

    // At the end of the block: all that is still to be written; throws where the kernel did not wait.
    void finish();

    static void check(const TensorMap& map, const char* user);

private:
    struct Box {
        TensorMap map;
        uint32_t shared;
        int32_t at[4];

        uint32_t bytes() const;
        uint32_t row_bytes() const;
        uint32_t rows() const;
        bool is_outside() const; // all of it
    };

    struct Load {
        Box box;
        uint32_t barrier;
    };

    struct Store {
        Box box;
        std::vector<unsigned char> bytes; // once read
        bool was_read = false;
        bool was_written = false;
    };

    struct StoreGroup {
        std::deque<Store> stores;
        bool was_read = false;
    };

    // Of one thread.
    struct Stores {
        std::deque<Store> open;
        std::deque<StoreGroup> committed;
    };

    template <typename Visit>
    static void for_each_row(const Box& box, Visit visit);
    static void complete(const Load& load);
    static void read(Store& store);
    static void read(StoreGroup& group);
    static void write(Store& store);
    static void write_first(Stores& stores);

    std::vector<Load> loads_;
    std::vector<Stores> stores_;
};

} // namespace lattn::emulator
