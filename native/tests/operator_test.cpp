// lattn_forward and lattn_backward on the CPU over the whole range of arguments: output and states against the float64
// recurrence, gradients against its adjoint, inputs and surroundings untouched.
#include <gtest/gtest.h>

#include "problem.h"

namespace lattn::test {
namespace {

const std::vector<double> kRates = {0, 1e-4, 1, 100};

void check(const Case& c) {
    Problem problem(c);
    std::vector<std::vector<unsigned char>> before;
    for (Tensor* input : problem.inputs()) before.push_back(input->storage());
    problem.run_forward();
    problem.expect_forward();
    problem.run_backward();
    problem.expect_backward();
    problem.expect_guards_intact();
    for (std::size_t i = 0; i < before.size(); ++i) EXPECT_EQ(before[i], problem.inputs()[i]->storage()) << c;
}

class ForwardAndBackward : public ::testing::TestWithParam<lattn_dtype> {};

TEST_P(ForwardAndBackward, EveryLengthAndRate) {
    for (int64_t tokens : {0, 1, 2, 63, 64, 65, 128, 211})
        for (bool history : {false, true}) {
            Case c;
            c.dtype = GetParam();
            c.sizes = sizes_of(2, 4, 4, tokens, 16, 24);
            c.rates = kRates;
            c.history = history;
            c.scale = 0.25;
            check(c);
        }
}

TEST_P(ForwardAndBackward, EveryHeadSize) {
    for (int64_t d : {1, 5, 17, 32, 80})
        for (int64_t e : {1, 7, 33, 64, 80}) {
            Case c;
            c.dtype = GetParam();
            c.sizes = sizes_of(1, 1, 1, 70, d, e);
            check(c);
        }
}

TEST_P(ForwardAndBackward, LargeHeads) {
    Case c;
    c.dtype = GetParam();
    c.sizes = sizes_of(1, 1, 1, 130, 256, 200, 128);
    c.scale = 1 / 16.0;
    check(c);
}

TEST_P(ForwardAndBackward, GroupedHeads) {
    for (int64_t heads_qk : {1, 2, 3}) {
        Case c;
        c.dtype = GetParam();
        c.sizes = sizes_of(2, heads_qk, 6, 100, 12, 20);
        c.rates = {0.01, 0.1, 0.3};
        check(c);
    }
}

TEST_P(ForwardAndBackward, StatesOfBlocks) {
    for (int64_t block_size : {64, 128, 192, 256, 1024})
        for (int64_t tokens : {0, 1, 192, 256, 300})
            for (bool block_states : {true, false}) {
                Case c;
                c.dtype = GetParam();
                c.sizes = sizes_of(1, 2, 2, tokens, 8, 9, block_size, block_states);
                c.rates = {0.002, 0.2};
                check(c);
            }
}

TEST_P(ForwardAndBackward, EveryLayout) {
    for (Layout layout : {Layout::kTokenMajor, Layout::kPadded, Layout::kReversed}) {
        Case c;
        c.dtype = GetParam();
        c.sizes = sizes_of(2, 2, 4, 100, 20, 13);
        c.rates = {0.01, 0.1};
        c.qk_layout = c.v_layout = c.state_layout = c.output_layout = layout;
        check(c);
    }
    for (Layout layout : {Layout::kSharedBatch, Layout::kSharedHeads, Layout::kSharedTokens}) {
        Case c;
        c.dtype = GetParam();
        c.sizes = sizes_of(2, 2, 4, 100, 20, 13);
        c.rates = {0.01, 0.1};
        c.qk_layout = c.v_layout = layout;
        check(c);
    }
}

INSTANTIATE_TEST_SUITE_P(Types, ForwardAndBackward, ::testing::ValuesIn(kTypes),
                         [](const auto& type) { return name_of(type.param); });

} // namespace
} // namespace lattn::test
