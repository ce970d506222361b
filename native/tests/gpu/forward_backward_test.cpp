// lattn_forward and lattn_backward over the range of their arguments, by the automatic path.
#include <cmath>
#include <iostream>

#include "gpu/on_device.h"

namespace lattn::test {
namespace {

class ForwardBackward : public OnDevice {};

TEST_P(ForwardBackward, EveryLengthAndRate) {
    for (int64_t tokens : {0, 1, 63, 64, 65, 200})
        for (bool history : {false, true}) {
            Case c = target_case(sizes_of(2, 5, 5, tokens, 32, 24));
            c.rates = {0, 1e-4, 0.05, 1, 100};
            c.history = history;
            c.scale = 0.25;
            check_forward_and_backward(c);
        }
}

TEST_P(ForwardBackward, EveryHeadSize) {
    for (int64_t d : {16, 40, 64, 96, 128, 200, 256})
        for (int64_t e : {16, 64, 72, 128, 192, 256}) {
            Case c = target_case(sizes_of(1, 1, 1, 70, d, e));
            c.scale = 0.1;
            check_forward_and_backward(c);
        }
}

TEST_P(ForwardBackward, GroupedHeads) {
    for (int64_t heads_qk : {1, 2, 3}) {
        Case c = target_case(sizes_of(2, heads_qk, 6, 130, 40, 72));
        c.rates = {0.01, 0.1, 0.3};
        check_forward_and_backward(c);
    }
}

TEST_P(ForwardBackward, StatesOfBlocks) {
    for (int64_t block_size : {64, 128, 256, 1024})
        for (int64_t tokens : {0, 1, 192, 256, 300})
            for (bool block_states : {true, false}) {
                Case c = target_case(sizes_of(1, 2, 2, tokens, 24, 16, block_size, block_states));
                c.rates = {0.002, 0.2};
                check_forward_and_backward(c);
            }
}

TEST_P(ForwardBackward, EveryLayout) {
    for (Layout layout : {Layout::kTokenMajor, Layout::kPadded, Layout::kReversed}) {
        Case c = target_case(sizes_of(2, 2, 4, 100, 24, 40));
        c.rates = {0.01, 0.1};
        c.qk_layout = c.v_layout = c.state_layout = c.output_layout = layout;
        check_forward_and_backward(c);
    }
    for (Layout layout : {Layout::kSharedBatch, Layout::kSharedHeads, Layout::kSharedTokens}) {
        Case c = target_case(sizes_of(2, 2, 4, 100, 24, 40));
        c.rates = {0.01, 0.1};
        c.qk_layout = c.v_layout = layout;
        check_forward_and_backward(c);
    }
}

TEST_P(ForwardBackward, LongSequenceWithSlowDecay) {
    Case c = target_case(sizes_of(1, 2, 2, 2048, 16, 24, 256));
    c.rates = {0, 1e-4};
    c.scale = 0.25;
    check_forward_and_backward(c);
}

// The decay rate's gradient is a number per head, of 2^26 terms here: right to these bars in slow and fast heads alike.
TEST_P(ForwardBackward, DecayRateGradientOfSlowAndFastHeads) {
    if (device().multiprocessors() < 64) GTEST_SKIP() << "needs a whole GPU: 8192 tokens";
    Case c = target_case(sizes_of(1, 8, 8, 8192, 128, 128, 256, false));
    c.rates = {0, 1e-4, 0.001, 0.004, 0.03, 0.2, 1, 4};
    c.scale = 0.25;
    c.history = false;
    Problem problem(c);
    lattn_backward_params backward = problem.backward_params();
    backward.grad_states = {};
    Mirror mirror(device(), problem);
    mirror.backward(backward);
    mirror.fetch();
    const std::vector<double> expected = problem.expected_gradients(true, false).rate;
    const std::vector<double> actual = problem.grad_rate.values();
    const double bar = c.dtype == LATTN_FLOAT32 && !c.allow_tf32 ? 1e-4 : 1e-2;
    std::cout << "relative errors of the decay rates' gradients:";
    for (std::size_t head = 0; head < expected.size(); ++head) {
        const double error = std::abs(actual[head] - expected[head]) / std::abs(expected[head]);
        std::cout << ' ' << error;
        EXPECT_LE(error, bar) << "head " << head << ": " << actual[head] << ", expected " << expected[head];
    }
    std::cout << '\n';
}

TEST_P(ForwardBackward, WithoutStatesAndWithoutTheirGradients) {
    for (bool with_grad_output : {true, false})
        for (bool with_grad_states : {true, false}) {
            Case c = target_case(sizes_of(1, 1, 2, 150, 24, 16));
            c.rates = {0.02, 0.4};
            Problem problem(c);
            Mirror mirror(device(), problem);
            lattn_forward_params forward = problem.forward_params();
            forward.states = {};
            mirror.forward(forward);
            lattn_backward_params backward = problem.backward_params();
            if (!with_grad_output) backward.grad_output = {};
            if (!with_grad_states) backward.grad_states = {};
            mirror.backward(backward);
            mirror.fetch();
            problem.expect_output(reference::forward(c.sizes, problem.reference_inputs()));
            problem.expect_backward(problem.expected_gradients(with_grad_output, with_grad_states));
            problem.expect_guards_intact();
        }
}

TEST_P(ForwardBackward, EachGradientAloneIsTheSame) {
    Case c = target_case(sizes_of(2, 2, 4, 150, 24, 40));
    c.rates = {0.02, 0.4};
    const auto gradients_of = [](Problem& problem) {
        return std::vector<Tensor*>{&problem.grad_q, &problem.grad_k, &problem.grad_v, &problem.grad_history,
                                    &problem.grad_rate};
    };
    Problem all(c);
    Mirror mirror_of_all(device(), all);
    mirror_of_all.backward(all.backward_params());
    mirror_of_all.fetch();
    for (std::size_t wanted = 0; wanted < 5; ++wanted) {
        Problem one(c);
        std::vector<std::vector<unsigned char>> untouched;
        for (Tensor* gradient : gradients_of(one)) untouched.push_back(gradient->storage());
        lattn_backward_params params = one.backward_params();
        if (wanted != 0) params.grad_q = {};
        if (wanted != 1) params.grad_k = {};
        if (wanted != 2) params.grad_v = {};
        if (wanted != 3) params.grad_history = {};
        if (wanted != 4) params.grad_decay_rate = nullptr;
        Mirror mirror(device(), one);
        mirror.backward(params);
        mirror.fetch();
        for (std::size_t i = 0; i < 5; ++i) {
            const Tensor& gradient = *gradients_of(one)[i];
            if (i == wanted)
                EXPECT_EQ(gradients_of(all)[i]->bytes(), gradient.bytes()) << "gradient " << i;
            else
                EXPECT_EQ(untouched[i], gradient.storage()) << "gradient " << i << " was not asked for";
        }
    }
}

TEST_P(ForwardBackward, EmptyBatch) {
    Problem problem(target_case(sizes_of(0, 2, 2, 10, 16, 24)));
    Mirror mirror(device(), problem);
    mirror.forward(problem.forward_params());
    mirror.backward(problem.backward_params());
    mirror.fetch();
    // A sum over no sequences.
    EXPECT_EQ(std::vector<double>({0, 0}), problem.grad_rate.values());
    problem.expect_guards_intact();
}

INSTANTIATE_TEST_SUITE_P(Devices, ForwardBackward, ::testing::ValuesIn(operator_targets()), target_name);

} // namespace
} // namespace lattn::test
