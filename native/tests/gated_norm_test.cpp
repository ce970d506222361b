// lattn_gated_norm_forward and _backward on the CPU, and what they refuse anywhere.
#include <gtest/gtest.h>

#include <cstring>
#include <functional>
#include <limits>
#include <string>

#include "gated_norm_problem.h"

namespace lattn::test {
namespace {

void run(GatedNormProblem& problem) {
    const lattn_gated_norm_forward_params forward = problem.forward_params();
    const lattn_gated_norm_backward_params backward = problem.backward_params();
    ASSERT_EQ(LATTN_OK, lattn_gated_norm_forward(&forward)) << lattn_last_error();
    ASSERT_EQ(LATTN_OK, lattn_gated_norm_backward(&backward)) << lattn_last_error();
}

void check(const GatedNormCase& c) {
    GatedNormProblem problem(c);
    run(problem);
    problem.expect_forward();
    problem.expect_backward();
    problem.expect_guards_intact();
}

class GatedNorm : public ::testing::TestWithParam<lattn_dtype> {
protected:
    static GatedNormCase typed(GatedNormCase c = {}) {
        c.dtype = GetParam();
        return c;
    }
};

TEST_P(GatedNorm, EverySizeAndActivation) {
    for (const GatedNormCase& c : gated_norm_cases()) check(typed(c));
}

TEST_P(GatedNorm, EveryLayout) {
    for (Layout x_layout : {Layout::kContiguous, Layout::kTokenMajor, Layout::kPadded, Layout::kReversed})
        for (Layout gate_layout : {Layout::kContiguous, Layout::kPadded, Layout::kReversed}) {
            GatedNormCase c = typed();
            c.x_layout = x_layout;
            c.gate_layout = gate_layout;
            c.groups = 2;
            check(c);
        }
}

// More rows than there are slices of the sum over them.
TEST_P(GatedNorm, ManyRows) {
    GatedNormCase c = typed();
    c.tokens = 701;
    c.head_dim = 24;
    check(c);
}

TEST_P(GatedNorm, OneChannelInAGroup) {
    GatedNormCase c = typed();
    c.groups = c.heads * c.head_dim;
    c.eps = 1; // else the gradient of x is a difference of equals
    check(c);
}

TEST_P(GatedNorm, GradientsThatAreNotWanted) {
    const std::vector<std::function<void(lattn_gated_norm_backward_params&)>> omissions = {
        [](auto& params) { params.grad_x = {}; },
        [](auto& params) { params.grad_gate = {}; },
        [](auto& params) { params.grad_weight = nullptr; },
    };
    GatedNormProblem all(typed());
    run(all);
    for (std::size_t omitted = 0; omitted < omissions.size(); ++omitted) {
        GatedNormProblem problem(typed());
        lattn_gated_norm_backward_params params = problem.backward_params();
        omissions[omitted](params);
        ASSERT_EQ(LATTN_OK, lattn_gated_norm_backward(&params)) << lattn_last_error();
        for (std::size_t i = 1; i < problem.results().size(); ++i) {
            if (i == 1 + omitted)
                for (double value : problem.results()[i]->values()) EXPECT_TRUE(std::isnan(value));
            else
                EXPECT_EQ(all.results()[i]->bytes(), problem.results()[i]->bytes()) << i;
        }
    }
}

TEST_P(GatedNorm, AloneAndInABatchBitwise) {
    GatedNormProblem together(typed()), again(typed()), alone(typed());
    run(together);
    run(again);
    for (std::size_t i = 0; i < together.results().size(); ++i)
        EXPECT_EQ(together.results()[i]->bytes(), again.results()[i]->bytes()) << "result " << i;
    for (int64_t entry = 0; entry < 2; ++entry) {
        const lattn_gated_norm_forward_params forward = entry_of(alone.forward_params(), entry);
        const lattn_gated_norm_backward_params backward = entry_of(alone.backward_params(), entry);
        ASSERT_EQ(LATTN_OK, lattn_gated_norm_forward(&forward)) << lattn_last_error();
        ASSERT_EQ(LATTN_OK, lattn_gated_norm_backward(&backward)) << lattn_last_error();
    }
    // The weight's gradient is a sum over the batch.
    for (std::size_t i = 0; i + 1 < together.results().size(); ++i)
        EXPECT_EQ(together.results()[i]->bytes(), alone.results()[i]->bytes()) << "result " << i;
}

TEST_P(GatedNorm, LargeValuesDoNotOverflow) {
    for (lattn_activation activation : {LATTN_SILU, LATTN_SIGMOID}) {
        GatedNormCase c = typed();
        c.activation = activation;
        c.x_scale = c.dtype == LATTN_FLOAT16 ? 1000 : 1e15;
        c.gate_scale = c.dtype == LATTN_FLOAT16 ? 1000 : 1e4;
        GatedNormProblem problem(c);
        run(problem);
        problem.expect_forward();
        c.gate_scale = 30;
        c.x_scale = 1;
        check(c);
    }
}

TEST_P(GatedNorm, WhatIsNotFiniteStaysInItsRow) {
    GatedNormProblem clean(typed()), spoilt(typed());
    std::vector<double> values = spoilt.x.values();
    values[0] = std::numeric_limits<double>::infinity(); // of entry 0
    spoilt.x.assign(values);
    run(clean);
    run(spoilt);
    for (std::size_t i = 0; i + 1 < clean.results().size(); ++i)
        EXPECT_EQ(clean.results()[i]->bytes_at(0, 1), spoilt.results()[i]->bytes_at(0, 1)) << "result " << i;
    EXPECT_TRUE(std::isnan(spoilt.output.values()[0]));
}

TEST_P(GatedNorm, NoRows) {
    for (const bool no_tokens : {true, false}) {
        GatedNormCase c = typed();
        (no_tokens ? c.tokens : c.batch) = 0;
        GatedNormProblem problem(c);
        lattn_gated_norm_forward_params forward = problem.forward_params();
        lattn_gated_norm_backward_params backward = problem.backward_params();
        forward.x = forward.gate = forward.output = {};
        forward.weight = nullptr;
        backward.x = backward.gate = backward.grad_output = {};
        ASSERT_EQ(LATTN_OK, lattn_gated_norm_forward(&forward)) << lattn_last_error();
        ASSERT_EQ(LATTN_OK, lattn_gated_norm_backward(&backward)) << lattn_last_error();
        for (double value : problem.grad_weight.values()) EXPECT_EQ(0.0, value);
    }
}

INSTANTIATE_TEST_SUITE_P(Types, GatedNorm, ::testing::ValuesIn(kTypes),
                         [](const auto& type) { return std::string(name_of(type.param)); });

struct Refusal {
    const char* name;
    void (*spoil)(lattn_gated_norm&);
    std::vector<const char*> message;
};

class RefusedGatedNorm : public ::testing::TestWithParam<Refusal> {};

TEST_P(RefusedGatedNorm, NamesTheValue) {
    GatedNormProblem problem{GatedNormCase{}};
    lattn_gated_norm_forward_params forward = problem.forward_params();
    lattn_gated_norm_backward_params backward = problem.backward_params();
    GetParam().spoil(forward.norm);
    GetParam().spoil(backward.norm);
    uint64_t bytes = 0;
    const auto expect_refused = [](lattn_status status) {
        EXPECT_EQ(LATTN_INVALID_ARGUMENT, status);
        for (const char* part : GetParam().message)
            EXPECT_NE(nullptr, std::strstr(lattn_last_error(), part)) << lattn_last_error() << " lacks " << part;
    };
    expect_refused(lattn_gated_norm_forward(&forward));
    expect_refused(lattn_gated_norm_backward(&backward));
    expect_refused(lattn_gated_norm_backward_workspace_size(&backward, &bytes));
    for (Tensor* result : problem.results())
        for (double value : result->values()) ASSERT_TRUE(std::isnan(value)) << "something was written";
}

INSTANTIATE_TEST_SUITE_P(
    Values, RefusedGatedNorm,
    ::testing::Values(Refusal{"Batch", [](lattn_gated_norm& n) { n.batch = -1; }, {"batch = -1"}},
                      Refusal{"Heads", [](lattn_gated_norm& n) { n.heads = 0; }, {"heads = 0", "at least 1"}},
                      Refusal{"Tokens", [](lattn_gated_norm& n) { n.tokens = -2; }, {"tokens = -2"}},
                      Refusal{"HeadDim", [](lattn_gated_norm& n) { n.head_dim = 0; }, {"head_dim = 0"}},
                      Refusal{"NoGroups", [](lattn_gated_norm& n) { n.groups = 0; }, {"groups = 0"}},
                      Refusal{"Groups", [](lattn_gated_norm& n) { n.groups = 5; }, {"groups = 5", "= 64"}},
                      Refusal{"Eps", [](lattn_gated_norm& n) { n.eps = -1e-6; }, {"eps = -1e-06"}},
                      Refusal{"EpsNan", [](lattn_gated_norm& n) { n.eps = std::nan(""); }, {"eps", "finite"}},
                      Refusal{"Activation", [](lattn_gated_norm& n) { n.activation = 3; }, {"activation = 3"}},
                      Refusal{"Dtype", [](lattn_gated_norm& n) { n.dtype = LATTN_INT32; }, {"dtype", "int32"}},
                      Refusal{"Device", [](lattn_gated_norm& n) { n.device_type = 3; }, {"device_type = 3"}}),
    [](const auto& refusal) { return std::string(refusal.param.name); });

TEST(GatedNormAbi, NullAndWrongSizesAreRefused) {
    GatedNormProblem problem{GatedNormCase{}};
    const auto expect_refused = [](lattn_status status, const char* part) {
        EXPECT_EQ(LATTN_INVALID_ARGUMENT, status) << part;
        EXPECT_NE(nullptr, std::strstr(lattn_last_error(), part)) << lattn_last_error() << " lacks " << part;
    };
    expect_refused(lattn_gated_norm_forward(nullptr), "params is NULL");
    expect_refused(lattn_gated_norm_backward(nullptr), "params is NULL");
    const lattn_gated_norm_forward_params forward = problem.forward_params();
    lattn_gated_norm_forward_params params = forward;
    params.struct_size -= 8;
    expect_refused(lattn_gated_norm_forward(&params), "lattn_gated_norm_forward_params.struct_size");
    params = forward;
    params.x.data = nullptr;
    expect_refused(lattn_gated_norm_forward(&params), "x.data is NULL");
    params = forward;
    params.gate.data = nullptr;
    expect_refused(lattn_gated_norm_forward(&params), "gate.data is NULL");
    params = forward;
    params.weight = nullptr;
    expect_refused(lattn_gated_norm_forward(&params), "weight.data is NULL");
    params = forward;
    params.output.data = nullptr;
    expect_refused(lattn_gated_norm_forward(&params), "output.data is NULL");
    lattn_gated_norm_backward_params backward = problem.backward_params();
    backward.struct_size = 0;
    expect_refused(lattn_gated_norm_backward(&backward), "lattn_gated_norm_backward_params.struct_size");
    backward = problem.backward_params();
    backward.grad_output.data = nullptr;
    expect_refused(lattn_gated_norm_backward(&backward), "grad_output.data is NULL");
    expect_refused(lattn_gated_norm_backward_workspace_size(&backward, nullptr), "bytes is NULL");
}

// From the sizes alone, whatever the GPU: the order of a sum follows from it.
TEST(GatedNormAbi, WorkspaceIsForTheSumOverRows) {
    GatedNormProblem problem{GatedNormCase{}};
    lattn_gated_norm_backward_params params = problem.backward_params();
    uint64_t bytes = 1;
    ASSERT_EQ(LATTN_OK, lattn_gated_norm_backward_workspace_size(&params, &bytes)) << lattn_last_error();
    EXPECT_EQ(0u, bytes); // the CPU needs none
    if (lattn_kernel_count() == 0) GTEST_SKIP() << "this build has no CUDA kernels";
    params.norm.device_type = LATTN_CUDA;
    ASSERT_EQ(LATTN_OK, lattn_gated_norm_backward_workspace_size(&params, &bytes)) << lattn_last_error();
    EXPECT_EQ(10u * 64 * sizeof(float), bytes);
    params.norm.tokens = 1 << 20;
    ASSERT_EQ(LATTN_OK, lattn_gated_norm_backward_workspace_size(&params, &bytes)) << lattn_last_error();
    EXPECT_EQ(512u * 64 * sizeof(float), bytes);
    params.grad_weight = nullptr;
    ASSERT_EQ(LATTN_OK, lattn_gated_norm_backward_workspace_size(&params, &bytes)) << lattn_last_error();
    EXPECT_EQ(0u, bytes);
}

} // namespace
} // namespace lattn::test
