// The reference itself: its gradients against finite differences of its forward, in float64.
#include "reference.h"

#include <gtest/gtest.h>

#include <random>

#include "problem.h"

namespace lattn::test {
namespace {

double dot(const std::vector<double>& a, const std::vector<double>& b) {
    double sum = 0;
    for (std::size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
    return sum;
}

class ReferenceGradients : public ::testing::TestWithParam<bool> {};

TEST_P(ReferenceGradients, AgreeWithFiniteDifferences) {
    Sizes sizes;
    sizes.batch = 2;
    sizes.heads_qk = 2;
    sizes.heads_v = 4;
    sizes.tokens = 9;
    sizes.head_dim_qk = 3;
    sizes.head_dim_v = 4;
    sizes.block_size = 4; // smaller than the kernels allow, so that few tokens make several blocks
    sizes.block_states = GetParam();

    std::mt19937 random(7);
    Inputs in;
    in.q = random_values(2 * 2 * 9 * 3, random);
    in.k = random_values(2 * 2 * 9 * 3, random);
    in.v = random_values(2 * 4 * 9 * 4, random);
    in.rate = {0.0, 0.03, 0.4, 2.0};
    in.history = random_values(2 * 4 * 3 * 4, random);
    in.scale = 0.7;
    const std::vector<double> grad_output = random_values(static_cast<int64_t>(in.v.size()), random);
    const std::vector<double> grad_states = random_values(2 * 4 * sizes.state_count() * 3 * 4, random);
    const auto loss = [&] {
        const Outputs out = reference::forward(sizes, in);
        return dot(out.output, grad_output) + dot(out.states, grad_states);
    };
    const Gradients grad = reference::backward(sizes, in, grad_output, grad_states);

    const auto check = [&](const char* name, std::vector<double>& values, const std::vector<double>& gradient) {
        ASSERT_EQ(values.size(), gradient.size()) << name;
        for (std::size_t i = 0; i < values.size(); ++i) {
            constexpr double step = 1e-4;
            const double value = values[i];
            values[i] = value + step;
            const double above = loss();
            values[i] = value - step;
            const double below = loss();
            values[i] = value;
            EXPECT_NEAR((above - below) / (2 * step), gradient[i], 1e-6 * (1 + std::abs(gradient[i])))
                << name << "[" << i << "]";
        }
    };
    check("q", in.q, grad.q);
    check("k", in.k, grad.k);
    check("v", in.v, grad.v);
    check("history", in.history, grad.history);
    check("rate", in.rate, grad.rate);
}

INSTANTIATE_TEST_SUITE_P(States, ReferenceGradients, ::testing::Bool());

TEST(Reference, FirstTokensByHand) {
    Sizes sizes;
    sizes.tokens = 2;
    sizes.head_dim_qk = 1;
    sizes.head_dim_v = 1;
    Inputs in;
    in.q = {2, 3};
    in.k = {5, 7};
    in.v = {11, 13};
    in.rate = {std::log(2.0)};
    in.history = {4};
    in.scale = 10;
    const Outputs out = reference::forward(sizes, in);
    // S: 4, 4/2 + 55 = 57, 57/2 + 91 = 119.5
    EXPECT_DOUBLE_EQ(10 * 57 * 2, out.output[0]);
    EXPECT_DOUBLE_EQ(10 * 119.5 * 3, out.output[1]);
    EXPECT_DOUBLE_EQ(4, out.states[0]);
    EXPECT_DOUBLE_EQ(119.5, out.states[1]);
}

} // namespace
} // namespace lattn::test
