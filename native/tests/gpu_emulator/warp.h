// Operations that the threads of a warp do together.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace lattn::emulator {

class Warp {
public:
    enum class Operation {
        kSync,
        kShuffle,
        kLoadMatrices,
        kLoadMatricesTransposed,
        kStoreMatrices,
        kMultiplyBfloat16,
        kMultiplyTf32
    };

    // A lane's part in an operation.
    struct Lane {
        uint32_t value = 0; // shuffle: that of this lane, then the result; matrices: address of a row
        int source = 0;     // shuffle: the lane whose value is wanted
        uint32_t* matrices = nullptr;
        float* accumulators = nullptr; // products
        const uint32_t* a = nullptr;
        const uint32_t* b = nullptr;
        bool done = false;
    };

    static constexpr uint32_t kAllLanes = 0xffffffffu;

    explicit Warp(int index) : index_(index) {}

    // Waits until all lanes of the mask have come with the same operation.
    void join(Operation operation, uint32_t mask, Lane& lane);

    void lane_ended(int lane);

    static std::string describe(Operation operation);

private:
    struct Meeting {
        Operation operation;
        uint32_t mask;
        uint32_t present = 0;
        Lane* lanes[32] = {};
    };

    bool is_complete(const Meeting& meeting) const;
    void finish(std::size_t meeting);
    static void execute(Meeting& meeting);

    int index_;
    uint32_t ended_ = 0;
    std::vector<Meeting> meetings_;
};

} // namespace lattn::emulator
