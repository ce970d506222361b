// lattn_forward on the CPU against the float64 recurrence.
#include <gtest/gtest.h>

#include "problem.h"

namespace lattn::test {
namespace {

class Forward : public ::testing::TestWithParam<lattn_dtype> {};

TEST_P(Forward, NoStatesAskedFor) {
    Case c;
    c.dtype = GetParam();
    c.sizes = sizes_of(1, 2, 2, 150, 16, 16);
    Problem problem(c);
    lattn_forward_params params = problem.forward_params();
    params.states = {};
    ASSERT_EQ(LATTN_OK, lattn_forward(&params)) << lattn_last_error();
    const Outputs expected = reference::forward(c.sizes, problem.reference_inputs());
    EXPECT_TRUE(matches(problem.output.values(), expected.output, c.dtype, 150 * 16));
}

TEST_P(Forward, EmptyBatch) {
    Case c;
    c.dtype = GetParam();
    c.sizes = sizes_of(0, 2, 2, 10, 8, 8);
    Problem problem(c);
    lattn_forward_params params = problem.forward_params();
    params.q = params.k = params.v = params.output = {};
    params.decay_rate = nullptr;
    params.history = {};
    EXPECT_EQ(LATTN_OK, lattn_forward(&params)) << lattn_last_error();
    problem.expect_guards_intact();
}

TEST_P(Forward, NoTokensReturnTheHistory) {
    Case c;
    c.dtype = GetParam();
    c.sizes = sizes_of(2, 2, 2, 0, 8, 8);
    Problem problem(c);
    lattn_forward_params params = problem.forward_params();
    params.q = params.k = params.v = params.output = {};
    ASSERT_EQ(LATTN_OK, lattn_forward(&params)) << lattn_last_error();
    EXPECT_EQ(problem.history.bytes(), problem.states.bytes());
}

TEST_P(Forward, LongSequenceWithSlowDecay) {
    Case c;
    c.dtype = GetParam();
    c.sizes = sizes_of(1, 2, 2, 2048, 16, 16, 256);
    c.rates = {0, 1e-4};
    c.scale = 0.25;
    Problem problem(c);
    problem.run_forward();
    problem.expect_forward();
    problem.expect_guards_intact();
}

INSTANTIATE_TEST_SUITE_P(Types, Forward, ::testing::ValuesIn(kTypes),
                         [](const auto& type) { return name_of(type.param); });

// A value that has not been seen yet must not reach an output, be it NaN.
TEST(ForwardCausality, LaterTokensDoNotReachEarlierOnes) {
    for (int64_t poisoned : {1, 5, 63, 64, 90}) {
        Case c;
        c.sizes = sizes_of(1, 1, 1, 100, 16, 16);
        Problem clean(c);
        clean.run_forward();
        Problem problem(c);
        for (Tensor* input : {&problem.q, &problem.k, &problem.v}) {
            std::vector<double> values = input->values();
            std::fill(values.begin() + poisoned * 16, values.end(), std::numeric_limits<double>::quiet_NaN());
            input->assign(values);
        }
        problem.run_forward();
        std::vector<double> expected = clean.output.values(), actual = problem.output.values();
        expected.resize(static_cast<std::size_t>(poisoned * 16));
        actual.resize(expected.size());
        EXPECT_EQ(expected, actual) << poisoned;
    }
}

// Prefill in two parts equals prefill in one, bit for bit where the parts meet at a multiple of 64 tokens.
TEST(ForwardInParts, ContinuesFromTheState) {
    for (int64_t split : {64, 128, 100}) {
        Case c;
        c.sizes = sizes_of(1, 1, 1, 200, 16, 24, 64, false);
        Problem whole(c);
        whole.run_forward();

        Problem parts(c);
        const lattn_forward_params first = tokens_of(parts.forward_params(), 0, split);
        ASSERT_EQ(LATTN_OK, lattn_forward(&first)) << lattn_last_error();
        lattn_forward_params second = tokens_of(parts.forward_params(), split, 200 - split);
        second.history = final_state(first);
        Tensor states(LATTN_FLOAT32, {1, 1, 1, 16, 24});
        second.states = states.states_view();
        ASSERT_EQ(LATTN_OK, lattn_forward(&second)) << lattn_last_error();
        if (split % 64 == 0) {
            EXPECT_EQ(whole.output.bytes(), parts.output.bytes()) << split;
            EXPECT_EQ(whole.states.bytes(), states.bytes()) << split;
        } else {
            EXPECT_TRUE(matches(parts.output.values(), whole.output.values(), LATTN_FLOAT32, 200 * 24)) << split;
            EXPECT_TRUE(matches(states.values(), whole.states.values(), LATTN_FLOAT32, 16 * 24)) << split;
        }
    }
}

} // namespace
} // namespace lattn::test
