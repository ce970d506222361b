// The backward pass by the Hopper path: sizes, segments of 2048 tokens of which the first in scan order may be short,
// and that the grid changes no bit.
#include <utility>
#include <vector>

#include "gpu/on_device.h"

namespace lattn::test {
namespace {

constexpr int64_t kSegment = 2048; // tokens

class HopperBackward : public OnHopper {
protected:
    Case backward_case(const Sizes& sizes) const {
        Case c = hopper_case(sizes);
        c.backward = true;
        return c;
    }
};

TEST_P(HopperBackward, EveryHeadSize) {
    std::vector<std::pair<int64_t, int64_t>> sizes = {{16, 16}, {64, 128}, {128, 72}, {136, 96}, {256, 192}};
    if (device().multiprocessors() >= 64) // an emulated GPU has few, and takes long
        for (int64_t d : {64, 96, 128, 192, 256})
            for (int64_t e : {64, 128, 192}) sizes.push_back({d, e});
    for (const auto& [d, e] : sizes) {
        Case c = backward_case(sizes_of(1, 1, 1, 200, d, e));
        c.rates = {0.02};
        check_forward_and_backward(c);
    }
}

TEST_P(HopperBackward, EveryLength) {
    for (int64_t tokens : {1, 63, 64, 65, 200})
        for (int64_t block_size : {64, 128}) {
            Case c = backward_case(sizes_of(1, 1, 2, tokens, 64, 16, block_size, true));
            c.rates = {0.001, 0.03};
            check_forward_and_backward(c);
        }
}

// The first segment in scan order is too short to forget what came before it, or just long enough.
TEST_P(HopperBackward, EveryRateAndShortSegment) {
    for (int64_t tail : {0, 1, 70, 640}) {
        Case c = backward_case(sizes_of(1, 4, 4, kSegment + tail, 16, 16, 256, tail != 1));
        c.rates = {0.0005, 0.02, 0.05, 1};
        check_forward_and_backward(c);
    }
}

TEST_P(HopperBackward, ManySegments) {
    Case c = backward_case(sizes_of(1, 1, 2, 5 * kSegment + 65, 16, 16, kSegment, true));
    c.rates = {0.002, 0.02};
    check_forward_and_backward(c);
}

TEST_P(HopperBackward, EveryLayoutAndScale) {
    for (Layout layout : {Layout::kTokenMajor, Layout::kSharedBatch, Layout::kSharedHeads}) {
        Case c = backward_case(sizes_of(2, 2, 4, 200, 72, 40, 64, true));
        c.qk_layout = c.v_layout = layout;
        c.rates = {0.01, 0.3};
        c.scale = -0.3;
        check_forward_and_backward(c);
    }
}

// The gradients of the first and the last sequence of a batch, and of each alone.
void expect_same_bits_alone(Device& device, const Case& c) {
    Problem together(c), alone(c);
    Mirror mirror(device, together), mirror_alone(device, alone);
    const auto without_rate = [](lattn_backward_params params) { // its gradient is a sum over the batch
        params.grad_decay_rate = nullptr;
        return params;
    };
    mirror.backward(without_rate(together.backward_params()));
    const int64_t last = c.sizes.batch - 1;
    for (int64_t sequence : {int64_t{0}, last})
        mirror_alone.backward(without_rate(sequence_of(alone.backward_params(), sequence)));
    mirror.fetch();
    mirror_alone.fetch();
    for (int64_t sequence : {int64_t{0}, last}) {
        const auto expect_equal = [&](const Tensor& expected, const Tensor& actual, const char* name) {
            EXPECT_EQ(expected.bytes_at(0, sequence), actual.bytes_at(0, sequence)) << name << ": " << c;
        };
        expect_equal(together.grad_q, alone.grad_q, "grad_q");
        expect_equal(together.grad_k, alone.grad_k, "grad_k");
        expect_equal(together.grad_v, alone.grad_v, "grad_v");
        expect_equal(together.grad_history, alone.grad_history, "grad_history");
    }
}

// As many sequences as multiprocessors: a CTA walks all segments of one. Alone, segments have CTAs of their own. And
// heads that leave some multiprocessors to none of the three scans when alone, so that these walk the first segments.
TEST_P(HopperBackward, AloneAndInABatch) {
    const int64_t multiprocessors = device().multiprocessors();
    for (int64_t d : {16, 136}) {
        Case c = backward_case(sizes_of(multiprocessors, 1, 1, kSegment + 100, d, 16, kSegment, d == 16));
        c.rates = {d == 16 ? 0.001 : 0.02};
        expect_same_bits_alone(device(), c);
    }
    if (multiprocessors >= 64) { // an emulated GPU has few, and takes long
        const int64_t heads = multiprocessors / 6 + 1;
        Case c = backward_case(sizes_of(2, heads, heads, 6 * kSegment - 100, 16, 16, kSegment, false));
        c.rates = {0.0005, 0.02};
        expect_same_bits_alone(device(), c);
    }
}

// As autograd's are, before anything else has used the device there.
TEST_P(HopperBackward, OnAThreadWithoutAContext) {
    Case c = backward_case(sizes_of(1, 1, 1, 70, 16, 16));
    Problem problem(c);
    Mirror mirror(device(), problem);
    mirror.use_new_threads();
    mirror.forward(problem.forward_params());
    mirror.backward(problem.backward_params());
    mirror.fetch();
    problem.expect_forward();
    problem.expect_backward();
}

INSTANTIATE_TEST_SUITE_P(Devices, HopperBackward, ::testing::ValuesIn(targets(kHopperTypes)), target_name);

} // namespace
} // namespace lattn::test
