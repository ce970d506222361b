// An activation with its tensors, judged by its formula in float64.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

#include "problem.h"

namespace lattn::test {

struct ActivationCase {
    lattn_dtype dtype = LATTN_FLOAT32;
    lattn_device_type device_type = LATTN_CPU;
    lattn_activation activation = LATTN_SILU;
    int64_t count = 5;
    int64_t offset = 0; // elements before the first one
    bool of_gradient = false;
    double scale = 3;
};

class ActivationProblem {
public:
    explicit ActivationProblem(const ActivationCase& c)
        : c_(c),
          input(c.dtype, {c.offset + c.count}),
          grad(c.dtype, {c.offset + c.count}),
          output(c.dtype, {c.offset + c.count}) {
        std::mt19937 random(11);
        std::normal_distribution<double> normal(0, c.scale);
        std::vector<double> values(static_cast<std::size_t>(input.count()));
        for (Tensor* tensor : {&input, &grad}) {
            for (double& value : values) value = normal(random);
            tensor->assign(values);
        }
        output.assign(std::vector<double>(values.size(), std::nan("")));
    }

    lattn_activation_params params() {
        lattn_activation_params params{};
        params.struct_size = sizeof(params);
        params.count = c_.count;
        params.activation = c_.activation;
        params.dtype = c_.dtype;
        params.device_type = c_.device_type;
        params.input = at_offset(input);
        if (c_.of_gradient) params.grad = at_offset(grad);
        params.output = at_offset(output);
        return params;
    }

    // Of results that came from `inputs`.
    void expect(const std::vector<double>& inputs, const std::vector<double>& results) const {
        const std::vector<double> grads = grad.values();
        for (std::size_t i = static_cast<std::size_t>(c_.offset); i < inputs.size(); ++i) {
            const double expected = c_.of_gradient ? grads[i] * derivative(inputs[i]) : value(inputs[i]);
            ASSERT_LE(std::abs(results[i] - expected), tolerance() * std::abs(expected) + least())
                << "element " << i << " = " << inputs[i] << " of " << inputs.size() << ", activation " << c_.activation
                << ", " << name_of(c_.dtype);
        }
    }

    void expect_output() const {
        expect(input.values(), output.values());
        for (std::size_t i = 0; i < static_cast<std::size_t>(c_.offset); ++i)
            ASSERT_TRUE(std::isnan(output.values()[i])) << "written before the output";
        EXPECT_TRUE(output.guards_intact());
    }

private:
    unsigned char* at_offset(Tensor& tensor) const {
        return static_cast<unsigned char*>(tensor.data()) + static_cast<std::size_t>(c_.offset) * bytes_of(c_.dtype);
    }

    static double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

    double value(double x) const {
        if (c_.activation == LATTN_IDENTITY) return x;
        return c_.activation == LATTN_SIGMOID ? sigmoid(x) : x * sigmoid(x);
    }

    double derivative(double x) const {
        if (c_.activation == LATTN_IDENTITY) return 1;
        const double slope = sigmoid(x) * sigmoid(-x);
        return c_.activation == LATTN_SIGMOID ? slope : sigmoid(x) + x * slope;
    }

    // Rounding, and exp() in the arithmetic type. A derivative of SiLU near its zero is a difference of equals.
    double tolerance() const {
        switch (c_.dtype) {
            case LATTN_FLOAT64:
                return 1e-14;
            case LATTN_FLOAT32:
                return 1e-6;
            case LATTN_FLOAT16:
                return 5.0e-4;
            default:
                return 4.0e-3;
        }
    }

    // Half the distance of the least numbers.
    double least() const {
        const double smallest = c_.dtype == LATTN_FLOAT16 ? std::ldexp(1.0, -25) : 1e-37;
        return c_.of_gradient ? smallest + c_.scale * (c_.dtype == LATTN_FLOAT64 ? 1e-14 : 1e-6) : smallest;
    }

    ActivationCase c_;

public:
    Tensor input;
    Tensor grad;
    Tensor output;
};

} // namespace lattn::test
