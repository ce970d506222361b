// lattn_backward on the CPU against the adjoint of the float64 recurrence.
#include <gtest/gtest.h>

#include "problem.h"

namespace lattn::test {
namespace {

class Backward : public ::testing::TestWithParam<lattn_dtype> {};

TEST_P(Backward, EachGradientAloneIsTheSame) {
    Case c;
    c.dtype = GetParam();
    c.sizes = sizes_of(2, 2, 4, 150, 20, 28);
    c.rates = {0.02, 0.4};
    Problem all(c);
    all.run_backward();
    for (int wanted = 0; wanted < 5; ++wanted) {
        Problem one(c);
        lattn_backward_params params = one.backward_params();
        if (wanted != 0) params.grad_q.data = nullptr;
        if (wanted != 1) params.grad_k.data = nullptr;
        if (wanted != 2) params.grad_v.data = nullptr;
        if (wanted != 3) params.grad_history.data = nullptr;
        if (wanted != 4) params.grad_decay_rate = nullptr;
        const std::vector<Tensor*> of_all = {&all.grad_q, &all.grad_k, &all.grad_v, &all.grad_history, &all.grad_rate};
        const std::vector<Tensor*> of_one = {&one.grad_q, &one.grad_k, &one.grad_v, &one.grad_history, &one.grad_rate};
        std::vector<std::vector<unsigned char>> untouched;
        for (Tensor* tensor : of_one) untouched.push_back(tensor->storage());
        ASSERT_EQ(LATTN_OK, lattn_backward(&params)) << lattn_last_error();
        for (int i = 0; i < 5; ++i) {
            const auto index = static_cast<std::size_t>(i);
            if (i == wanted)
                EXPECT_EQ(of_all[index]->bytes(), of_one[index]->bytes()) << "gradient " << i;
            else
                EXPECT_EQ(untouched[index], of_one[index]->storage()) << "gradient " << i << " was not asked for";
        }
    }
}

TEST_P(Backward, WithoutGradientOfTheOutputOrOfTheStates) {
    for (bool with_output : {true, false})
        for (bool with_states : {true, false}) {
            Case c;
            c.dtype = GetParam();
            c.sizes = sizes_of(1, 1, 2, 150, 20, 12);
            c.rates = {0.02, 0.4};
            Problem problem(c);
            lattn_backward_params params = problem.backward_params();
            if (!with_output) params.grad_output = {};
            if (!with_states) params.grad_states = {};
            ASSERT_EQ(LATTN_OK, lattn_backward(&params)) << lattn_last_error();
            const Gradients expected = problem.expected_gradients(with_output, with_states);
            problem.expect_grad_q(expected);
            problem.expect_grad_k(expected);
            problem.expect_grad_v(expected);
            problem.expect_grad_history(expected);
            problem.expect_grad_rate(expected);
        }
}

TEST_P(Backward, NothingAskedFor) {
    Case c;
    c.dtype = GetParam();
    Problem problem(c);
    lattn_backward_params params = problem.backward_params();
    params.grad_q = params.grad_k = params.grad_v = {};
    params.grad_history = {};
    params.grad_decay_rate = nullptr;
    EXPECT_EQ(LATTN_OK, lattn_backward(&params)) << lattn_last_error();
}

TEST_P(Backward, EmptyBatch) {
    Case c;
    c.dtype = GetParam();
    c.sizes = sizes_of(0, 2, 2, 10, 8, 8);
    Problem problem(c);
    lattn_backward_params params = problem.backward_params();
    params.q = params.k = params.v = params.grad_output = {};
    params.history = {};
    params.grad_states = {};
    ASSERT_EQ(LATTN_OK, lattn_backward(&params)) << lattn_last_error();
    // A sum over no sequences.
    EXPECT_EQ(std::vector<double>({0, 0}), problem.grad_rate.values());
    problem.expect_guards_intact();
}

INSTANTIATE_TEST_SUITE_P(Types, Backward, ::testing::ValuesIn(kTypes),
                         [](const auto& type) { return name_of(type.param); });

} // namespace
} // namespace lattn::test
