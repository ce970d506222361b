// lattn_activate on the CPU, and what it refuses anywhere.
#include <gtest/gtest.h>

#include <cstring>
#include <limits>
#include <string>

#include "activation_problem.h"

namespace lattn::test {
namespace {

class Activation : public ::testing::TestWithParam<lattn_dtype> {};

TEST_P(Activation, EveryFunctionAndSize) {
    for (lattn_activation activation : {LATTN_IDENTITY, LATTN_SILU, LATTN_SIGMOID})
        for (int64_t count : {0, 1, 7, 1024, 5003})
            for (const bool of_gradient : {false, true}) {
                ActivationCase c;
                c.dtype = GetParam();
                c.activation = activation;
                c.count = count;
                c.of_gradient = of_gradient;
                ActivationProblem problem(c);
                const lattn_activation_params params = problem.params();
                ASSERT_EQ(LATTN_OK, lattn_activate(&params)) << lattn_last_error();
                problem.expect_output();
            }
}

TEST_P(Activation, InPlace) {
    ActivationCase c;
    c.dtype = GetParam();
    c.count = 3000;
    ActivationProblem problem(c);
    const std::vector<double> inputs = problem.input.values();
    lattn_activation_params params = problem.params();
    params.output = problem.input.data();
    ASSERT_EQ(LATTN_OK, lattn_activate(&params)) << lattn_last_error();
    problem.expect(inputs, problem.input.values());
}

TEST_P(Activation, LargeAndInfiniteValues) {
    const double infinity = std::numeric_limits<double>::infinity();
    ActivationCase c;
    c.dtype = GetParam();
    ActivationProblem problem(c);
    problem.input.assign({60000, -60000, infinity, -500, 0});
    const lattn_activation_params params = problem.params();
    ASSERT_EQ(LATTN_OK, lattn_activate(&params)) << lattn_last_error();
    const std::vector<double> results = problem.output.values();
    EXPECT_EQ(rounded(60000, c.dtype), results[0]);
    EXPECT_EQ(0, results[1]);
    EXPECT_EQ(infinity, results[2]);
    EXPECT_NEAR(0, results[3], 1e-200);
    EXPECT_EQ(0, results[4]);
}

INSTANTIATE_TEST_SUITE_P(Types, Activation, ::testing::ValuesIn(kTypes),
                         [](const auto& type) { return std::string(name_of(type.param)); });

TEST(ActivationErrors, NameTheValue) {
    ActivationProblem problem(ActivationCase{});
    const auto expect_refused = [&](const char* message, auto spoil) {
        lattn_activation_params params = problem.params();
        spoil(params);
        EXPECT_EQ(LATTN_INVALID_ARGUMENT, lattn_activate(&params)) << message;
        EXPECT_NE(nullptr, std::strstr(lattn_last_error(), message)) << lattn_last_error() << " lacks " << message;
    };
    expect_refused("lattn_activation_params.struct_size", [](auto& params) { params.struct_size = 8; });
    expect_refused("count = -1", [](auto& params) { params.count = -1; });
    expect_refused("activation = 3", [](auto& params) { params.activation = 3; });
    expect_refused("int32", [](auto& params) { params.dtype = LATTN_INT32; });
    expect_refused("device_type = 7", [](auto& params) { params.device_type = 7; });
    expect_refused("input.data is NULL", [](auto& params) { params.input = nullptr; });
    expect_refused("output.data is NULL", [](auto& params) { params.output = nullptr; });
    EXPECT_EQ(LATTN_INVALID_ARGUMENT, lattn_activate(nullptr));
    for (double value : problem.output.values()) EXPECT_TRUE(std::isnan(value)) << "something was written";
}

TEST(SideStreamErrors, NoPlaceForTheStream) {
    EXPECT_EQ(LATTN_INVALID_ARGUMENT, lattn_fork_stream(0, nullptr, nullptr));
    EXPECT_NE(nullptr, std::strstr(lattn_last_error(), "side is NULL")) << lattn_last_error();
}

TEST(SideStreamErrors, NoPlaceForTheCount) {
    EXPECT_EQ(LATTN_INVALID_ARGUMENT, lattn_multiprocessor_count(0, nullptr));
    EXPECT_NE(nullptr, std::strstr(lattn_last_error(), "count is NULL")) << lattn_last_error();
}

} // namespace
} // namespace lattn::test
