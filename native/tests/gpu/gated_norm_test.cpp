// lattn_gated_norm_forward and _backward over the range of their arguments.
#include <limits>

#include "gpu/on_device.h"

namespace lattn::test {
namespace {

class GatedNorm : public OnDevice {
protected:
    GatedNormCase target_case(GatedNormCase c = {}) const {
        c.dtype = GetParam().dtype;
        c.device_type = GetParam().device;
        return c;
    }

    void run(GatedNormProblem& problem) {
        Mirror mirror(device(), problem);
        mirror.forward(problem.forward_params());
        mirror.backward(problem.backward_params());
        mirror.fetch();
    }
};

TEST_P(GatedNorm, EverySizeAndActivation) {
    for (const GatedNormCase& c : gated_norm_cases()) check(target_case(c));
}

TEST_P(GatedNorm, EveryLayout) {
    for (Layout x_layout : {Layout::kContiguous, Layout::kTokenMajor, Layout::kPadded, Layout::kReversed})
        for (Layout gate_layout : {Layout::kTokenMajor, Layout::kPadded, Layout::kReversed}) {
            GatedNormCase c = target_case();
            c.x_layout = x_layout;
            c.gate_layout = gate_layout;
            c.groups = 2;
            c.tokens = 3;
            check(c);
        }
}

// More than the registers of the largest team hold.
TEST_P(GatedNorm, GroupsThatAreReadTwice) {
    for (int64_t more : {8, 11}) {
        GatedNormCase c = target_case();
        c.batch = c.heads = 1;
        c.tokens = 2;
        c.head_dim = (16 << 10) / static_cast<int64_t>(bytes_of(c.dtype)) + more;
        check(c);
    }
}

// More rows than there are slices of the sum over them.
TEST_P(GatedNorm, SlicesOfSeveralRows) {
    for (int64_t head_dim : {8, 9}) {
        GatedNormCase c = target_case();
        c.batch = 3;
        c.tokens = 401;
        c.heads = 1;
        c.head_dim = head_dim;
        check(c);
    }
}

TEST_P(GatedNorm, OneChannelInAGroup) {
    GatedNormCase c = target_case();
    c.groups = c.heads * c.head_dim;
    c.eps = 1; // else the gradient of x is a difference of equals
    check(c);
}

TEST_P(GatedNorm, GradientsThatAreNotWanted) {
    GatedNormProblem all(target_case());
    run(all);
    for (std::size_t omitted = 1; omitted < 4; ++omitted) {
        GatedNormProblem problem(target_case());
        lattn_gated_norm_backward_params params = problem.backward_params();
        if (omitted == 1) params.grad_x = {};
        if (omitted == 2) params.grad_gate = {};
        if (omitted == 3) params.grad_weight = nullptr;
        Mirror mirror(device(), problem);
        mirror.backward(params);
        mirror.fetch();
        for (std::size_t i = 1; i < 4; ++i) {
            if (i == omitted)
                for (double value : problem.results()[i]->values()) EXPECT_TRUE(std::isnan(value));
            else
                EXPECT_EQ(all.results()[i]->bytes(), problem.results()[i]->bytes()) << i;
        }
    }
}

TEST_P(GatedNorm, AloneAndInABatchBitwise) {
    GatedNormProblem together(target_case()), again(target_case()), alone(target_case());
    run(together);
    run(again);
    for (std::size_t i = 0; i < together.results().size(); ++i)
        EXPECT_EQ(together.results()[i]->bytes(), again.results()[i]->bytes()) << "result " << i;
    Mirror mirror(device(), alone);
    for (int64_t entry = 0; entry < 2; ++entry) {
        mirror.forward(entry_of(alone.forward_params(), entry));
        mirror.backward(entry_of(alone.backward_params(), entry));
    }
    mirror.fetch();
    // The weight's gradient is a sum over the batch.
    for (std::size_t i = 0; i + 1 < together.results().size(); ++i)
        EXPECT_EQ(together.results()[i]->bytes(), alone.results()[i]->bytes()) << "result " << i;
}

// Loads of 16 bytes and of single elements: the same sums in the same order.
TEST_P(GatedNorm, AnyAddressBitwise) {
    for (int64_t head_dim : {16, 136}) {
        GatedNormCase c = target_case();
        c.head_dim = head_dim;
        GatedNormProblem aligned(c);
        c.x_layout = Layout::kPadded;
        GatedNormProblem shifted(c);
        run(aligned);
        run(shifted);
        for (std::size_t i = 0; i < aligned.results().size(); ++i)
            EXPECT_EQ(aligned.results()[i]->bytes(), shifted.results()[i]->bytes()) << "result " << i;
    }
}

TEST_P(GatedNorm, LargeValuesDoNotOverflow) {
    for (lattn_activation activation : {LATTN_SILU, LATTN_SIGMOID}) {
        GatedNormCase c = target_case();
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
    GatedNormProblem clean(target_case()), spoilt(target_case());
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
    GatedNormCase c = target_case();
    c.tokens = 0;
    GatedNormProblem problem(c);
    run(problem);
    for (double value : problem.grad_weight.values()) EXPECT_EQ(0.0, value);
}

INSTANTIATE_TEST_SUITE_P(Devices, GatedNorm, ::testing::ValuesIn(targets(kDeviceTypes)), target_name);

// Too much for the emulator, and for what judges the results on the CPU.
class GatedNormLarge : public GatedNorm {};

TEST_P(GatedNormLarge, LayersOfModels) {
    struct Layer {
        int64_t heads, head_dim, groups;
        lattn_activation activation;
    };
    for (const Layer& layer :
         {Layer{64, 128, 1, LATTN_SIGMOID}, Layer{16, 128, 4, LATTN_SIGMOID}, Layer{20, 64, 20, LATTN_SILU}})
        for (int64_t tokens : {1, 530}) {
            GatedNormCase c = target_case();
            c.batch = 1;
            c.heads = layer.heads;
            c.head_dim = layer.head_dim;
            c.groups = layer.groups;
            c.activation = layer.activation;
            c.tokens = tokens;
            check(c);
        }
}

TEST_P(GatedNormLarge, ManyRows) {
    GatedNormCase c = target_case();
    c.heads = 1;
    c.tokens = 20000;
    c.gate_layout = Layout::kContiguous;
    check(c);
}

INSTANTIATE_TEST_SUITE_P(Devices, GatedNormLarge, ::testing::ValuesIn(cuda_targets()), target_name);

} // namespace
} // namespace lattn::test
