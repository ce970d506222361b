// A gated norm with its tensors, judged by its formula in float64.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

#include "problem.h"

namespace lattn::test {

struct GatedNormCase {
    lattn_dtype dtype = LATTN_FLOAT32;
    int64_t batch = 2;
    int64_t heads = 4;
    int64_t tokens = 5;
    int64_t head_dim = 16;
    int64_t groups = 1;
    lattn_activation activation = LATTN_SIGMOID;
    double eps = 1e-5;
    double x_scale = 1;
    double gate_scale = 2;
    // As the layer has them: x as the operator leaves it, the others token by token.
    Layout x_layout = Layout::kContiguous;
    Layout gate_layout = Layout::kTokenMajor;
    lattn_device_type device_type = LATTN_CPU;
};

inline std::ostream& operator<<(std::ostream& out, const GatedNormCase& c) {
    return out << (c.device_type == LATTN_CUDA ? "CUDA " : "CPU ") << name_of(c.dtype) << " B=" << c.batch
               << " H=" << c.heads << " N=" << c.tokens << " E=" << c.head_dim << " G=" << c.groups
               << " activation=" << c.activation << " eps=" << c.eps << " x_scale=" << c.x_scale
               << " gate_scale=" << c.gate_scale << " layouts=" << static_cast<int>(c.x_layout)
               << static_cast<int>(c.gate_layout);
}

// The cases that differ in what the kernels do with them: groups that are several heads, a head, a part of one or
// neither; sizes that vectors divide and do not; a thread, a few, a warp and several warps for a group.
inline std::vector<GatedNormCase> gated_norm_cases() {
    // B, H, N, E, G
    constexpr int64_t kSizes[][5] = {{2, 4, 5, 16, 1},  {2, 4, 3, 16, 4},  {1, 4, 3, 16, 8}, {1, 3, 7, 5, 3},
                                     {2, 3, 2, 10, 5},  {1, 3, 4, 40, 2},  {1, 1, 3, 4, 1},  {1, 5, 1, 72, 1},
                                     {1, 6, 2, 128, 3}, {3, 8, 1, 128, 1}, {1, 7, 3, 91, 1}};
    std::vector<GatedNormCase> cases;
    for (const auto& sizes : kSizes) {
        GatedNormCase c;
        c.batch = sizes[0];
        c.heads = sizes[1];
        c.tokens = sizes[2];
        c.head_dim = sizes[3];
        c.groups = sizes[4];
        c.activation = static_cast<lattn_activation>(cases.size() % 3);
        cases.push_back(c);
    }
    return cases;
}

class GatedNormProblem {
public:
    explicit GatedNormProblem(const GatedNormCase& c)
        : c_(c),
          x(tensor(c.x_layout)),
          gate(tensor(c.gate_layout)),
          weight(c.dtype, {c.heads * c.head_dim}),
          grad_output(tensor(c.gate_layout)),
          output(tensor(c.gate_layout)),
          grad_x(tensor(c.x_layout)),
          grad_gate(tensor(c.gate_layout)),
          grad_weight(c.dtype, {c.heads * c.head_dim}) {
        std::mt19937 random(7);
        std::vector<double> values = random_values(x.count(), random);
        // Rows of different sizes, which the norm makes alike.
        for (std::size_t i = 0; i < values.size(); ++i)
            values[i] *= c.x_scale * std::ldexp(1.0, static_cast<int>(token_of(i)) % 4);
        x.assign(values);
        values = random_values(gate.count(), random);
        for (double& value : values) value *= c.gate_scale;
        gate.assign(values);
        values = random_values(weight.count(), random);
        for (double& value : values) value = 1 + value / 2;
        weight.assign(values);
        grad_output.assign(random_values(grad_output.count(), random));
        for (Tensor* result : results()) result->poison();
    }

    std::vector<Tensor*> inputs() { return {&x, &gate, &weight, &grad_output}; }
    std::vector<Tensor*> results() { return {&output, &grad_x, &grad_gate, &grad_weight}; }

    lattn_gated_norm_forward_params forward_params() {
        auto params = with_inputs<lattn_gated_norm_forward_params>();
        params.output = output.view();
        return params;
    }

    lattn_gated_norm_backward_params backward_params() {
        auto params = with_inputs<lattn_gated_norm_backward_params>();
        params.grad_output = grad_output.view();
        params.grad_x = grad_x.view();
        params.grad_gate = grad_gate.view();
        params.grad_weight = grad_weight.data();
        return params;
    }

    void expect_forward() const {
        const Expected expected = reference();
        EXPECT_TRUE(matches_rows(output, expected.output)) << "output: " << c_;
    }

    void expect_backward() const {
        const Expected expected = reference();
        EXPECT_TRUE(matches_rows(grad_x, expected.grad_x)) << "grad_x: " << c_;
        EXPECT_TRUE(matches_rows(grad_gate, expected.grad_gate)) << "grad_gate: " << c_;
        expect_grad_weight();
    }

    void expect_grad_weight() const {
        const std::vector<double> expected = reference().grad_weight;
        EXPECT_TRUE(matches(grad_weight.values(), expected, c_.dtype, weight.count(), limits()))
            << "grad_weight: " << c_;
    }

    void expect_guards_intact() {
        for (Tensor* input : inputs()) EXPECT_TRUE(input->guards_intact()) << c_;
        for (Tensor* result : results()) EXPECT_TRUE(result->guards_intact()) << c_;
    }

private:
    struct Expected {
        std::vector<double> output, grad_x, grad_gate, grad_weight;
    };

    static std::size_t at(int64_t index) { return static_cast<std::size_t>(index); }

    Tensor tensor(Layout layout) const { return {c_.dtype, {c_.batch, c_.heads, c_.tokens, c_.head_dim}, layout}; }

    int64_t token_of(std::size_t element) const {
        return static_cast<int64_t>(element) / c_.head_dim % std::max<int64_t>(c_.tokens, 1);
    }

    double activated(double value) const {
        if (c_.activation == LATTN_IDENTITY) return value;
        const double sigmoid = 1 / (1 + std::exp(-value));
        return c_.activation == LATTN_SILU ? value * sigmoid : sigmoid;
    }

    double derivative(double value) const {
        if (c_.activation == LATTN_IDENTITY) return 1;
        const double sigmoid = 1 / (1 + std::exp(-value));
        if (c_.activation == LATTN_SIGMOID) return sigmoid * (1 - sigmoid);
        return sigmoid + value * sigmoid * (1 - sigmoid);
    }

    // One group of one row after the other.
    Expected reference() const {
        const std::vector<double> xs = x.values(), gates = gate.values(), weights = weight.values(),
                                  grads = grad_output.values();
        Expected expected{std::vector<double>(xs.size()), std::vector<double>(xs.size()),
                          std::vector<double>(xs.size()), std::vector<double>(weights.size())};
        const int64_t channels = c_.heads * c_.head_dim, count = channels / c_.groups;
        for (int64_t row = 0; row < c_.batch * c_.tokens; ++row)
            for (int64_t first = 0; first < channels; first += count) {
                const auto element = [&](int64_t channel) {
                    const int64_t batch = row / c_.tokens, token = row % c_.tokens, head = channel / c_.head_dim;
                    return at(((batch * c_.heads + head) * c_.tokens + token) * c_.head_dim + channel % c_.head_dim);
                };
                double squares = 0, projection = 0;
                for (int64_t channel = first; channel < first + count; ++channel)
                    squares += std::pow(xs[element(channel)], 2) / static_cast<double>(count);
                const double inverse = 1 / std::sqrt(squares + c_.eps);
                for (int64_t channel = first; channel < first + count; ++channel) {
                    const std::size_t i = element(channel);
                    const double normed = xs[i] * inverse, a = activated(gates[i]), w = weights[at(channel)];
                    expected.output[i] = a * normed * w;
                    expected.grad_gate[i] = grads[i] * normed * w * derivative(gates[i]);
                    expected.grad_weight[at(channel)] += grads[i] * a * normed;
                    projection += grads[i] * a * w * normed / static_cast<double>(count);
                }
                for (int64_t channel = first; channel < first + count; ++channel) {
                    const std::size_t i = element(channel);
                    const double u = grads[i] * activated(gates[i]) * weights[at(channel)];
                    expected.grad_x[i] = inverse * (u - xs[i] * inverse * projection);
                }
            }
        return expected;
    }

    Tolerance limits() const { return limits_on(c_.device_type, c_.dtype).elements; }

    ::testing::AssertionResult matches_rows(const Tensor& actual, const std::vector<double>& expected) const {
        return matches(actual.values(), expected, c_.dtype, c_.tokens * c_.head_dim, limits());
    }

    template <typename Params>
    Params with_inputs() {
        Params params = {};
        params.struct_size = sizeof(params);
        params.norm.batch = c_.batch;
        params.norm.heads = c_.heads;
        params.norm.tokens = c_.tokens;
        params.norm.head_dim = c_.head_dim;
        params.norm.groups = c_.groups;
        params.norm.eps = c_.eps;
        params.norm.activation = c_.activation;
        params.norm.dtype = c_.dtype;
        params.norm.device_type = c_.device_type;
        params.x = x.view();
        params.gate = gate.view();
        params.weight = weight.data();
        return params;
    }

    GatedNormCase c_;

public:
    Tensor x, gate, weight, grad_output;
    Tensor output, grad_x, grad_gate, grad_weight;
};

// A call for entry `index` of the batch alone.
inline lattn_gated_norm_forward_params entry_of(lattn_gated_norm_forward_params params, int64_t index) {
    params.norm.batch = 1;
    for (lattn_view* view : {&params.x, &params.gate, &params.output})
        advance(view->data, index * view->stride_b, params.norm.dtype);
    return params;
}

inline lattn_gated_norm_backward_params entry_of(lattn_gated_norm_backward_params params, int64_t index) {
    params.norm.batch = 1;
    for (lattn_view* view : {&params.x, &params.gate, &params.grad_output, &params.grad_x, &params.grad_gate})
        advance(view->data, index * view->stride_b, params.norm.dtype);
    return params;
}

} // namespace lattn::test
