// A problem with its tensors, run through the C ABI and judged by the float64 reference.
#pragma once

#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

#include "compare.h"
#include "lightning_attn.h"
#include "reference.h"
#include "tensor.h"

namespace lattn::test {

inline constexpr lattn_dtype kTypes[] = {LATTN_FLOAT16, LATTN_BFLOAT16, LATTN_FLOAT32, LATTN_FLOAT64};

inline Sizes sizes_of(int64_t batch, int64_t heads_qk, int64_t heads_v, int64_t tokens, int64_t d, int64_t e,
                      int64_t block_size = 64, bool block_states = true) {
    return {batch, heads_qk, heads_v, tokens, d, e, block_size, block_states};
}

struct Case {
    lattn_dtype dtype = LATTN_FLOAT32;
    Sizes sizes;
    std::vector<double> rates = {0.05}; // repeated over the heads
    bool history = true;
    double scale = 1;
    Layout qk_layout = Layout::kContiguous;
    Layout v_layout = Layout::kContiguous;
    Layout state_layout = Layout::kContiguous;
    Layout output_layout = Layout::kContiguous;
    unsigned seed = 1;
    lattn_device_type device_type = LATTN_CPU; // whose limits the results are held to
    lattn_cuda_path cuda_path = LATTN_CUDA_PATH_AUTOMATIC;
    bool allow_tf32 = false;
    bool backward = true; // make the tensors that the backward pass alone needs
};

inline const char* name_of(lattn_dtype dtype) {
    switch (dtype) {
        case LATTN_FLOAT16:
            return "float16";
        case LATTN_BFLOAT16:
            return "bfloat16";
        case LATTN_FLOAT32:
            return "float32";
        case LATTN_FLOAT64:
            return "float64";
        default:
            return "unknown";
    }
}

inline std::ostream& operator<<(std::ostream& out, const Case& c) {
    out << (c.device_type == LATTN_CUDA ? "CUDA " : "CPU ") << name_of(c.dtype) << " path=" << c.cuda_path
        << " tf32=" << c.allow_tf32 << " B=" << c.sizes.batch << " Hk=" << c.sizes.heads_qk << " Hv=" << c.sizes.heads_v
        << " N=" << c.sizes.tokens << " D=" << c.sizes.head_dim_qk << " E=" << c.sizes.head_dim_v
        << " block=" << c.sizes.block_size << " states=" << c.sizes.state_count() << " history=" << c.history
        << " scale=" << c.scale << " rates=";
    for (double rate : c.rates) out << rate << ",";
    return out << " layouts=" << static_cast<int>(c.qk_layout) << static_cast<int>(c.v_layout)
               << static_cast<int>(c.state_layout) << static_cast<int>(c.output_layout);
}

inline std::vector<double> random_values(int64_t count, std::mt19937& random) {
    std::normal_distribution<double> normal;
    std::vector<double> values(static_cast<std::size_t>(count));
    for (double& value : values) value = normal(random);
    return values;
}

class Problem {
public:
    explicit Problem(const Case& c)
        : case_(c),
          q(tensor(c.dtype, key_sizes(), c.qk_layout)),
          k(tensor(c.dtype, key_sizes(), c.qk_layout)),
          v(tensor(c.dtype, value_sizes(), c.v_layout)),
          rate(state_dtype_of(c.dtype), {c.sizes.heads_v}),
          history(state_dtype_of(c.dtype), history_sizes(), c.state_layout, Tensor::Kind::kState),
          grad_output(tensor(c.dtype, for_backward(value_sizes()), c.v_layout)),
          grad_states(state_dtype_of(c.dtype), for_backward(states_sizes()), c.state_layout, Tensor::Kind::kState),
          output(tensor(c.dtype, value_sizes(), c.output_layout)),
          states(state_dtype_of(c.dtype), states_sizes(), c.state_layout, Tensor::Kind::kState),
          grad_q(tensor(c.dtype, for_backward(key_sizes()), c.output_layout)),
          grad_k(tensor(c.dtype, for_backward(key_sizes()), c.output_layout)),
          grad_v(tensor(c.dtype, for_backward(value_sizes()), c.output_layout)),
          grad_history(state_dtype_of(c.dtype), for_backward(history_sizes()), c.state_layout, Tensor::Kind::kState),
          grad_rate(state_dtype_of(c.dtype), for_backward({c.sizes.heads_v})) {
        std::mt19937 random(c.seed);
        for (Tensor* input : {&q, &k, &v, &history, &grad_output, &grad_states})
            input->assign(random_values(input->count(), random));
        std::vector<double> rates;
        for (int64_t head = 0; head < c.sizes.heads_v; ++head)
            rates.push_back(c.rates[static_cast<std::size_t>(head) % c.rates.size()]);
        rate.assign(rates);
        for (Tensor* result : results()) result->poison();
    }

    const Case& description() const { return case_; }
    std::vector<Tensor*> inputs() { return {&q, &k, &v, &rate, &history, &grad_output, &grad_states}; }
    std::vector<Tensor*> results() { return {&output, &states, &grad_q, &grad_k, &grad_v, &grad_history, &grad_rate}; }

    // What the kernels really read: rounded to the element type, shared where a stride is 0.
    Inputs reference_inputs() const {
        Inputs in;
        in.q = q.values();
        in.k = k.values();
        in.v = v.values();
        in.rate = rate.values();
        in.history = history.values();
        if (!case_.history) std::fill(in.history.begin(), in.history.end(), 0.0);
        in.scale = case_.scale;
        return in;
    }

    lattn_forward_params forward_params() {
        auto params = with_inputs<lattn_forward_params>();
        params.output = output.view();
        params.states = states.states_view();
        return params;
    }

    // Everything is given and everything is asked for.
    lattn_backward_params backward_params() {
        auto params = with_inputs<lattn_backward_params>();
        params.grad_output = grad_output.view();
        params.grad_states = grad_states.states_view();
        params.grad_q = grad_q.view();
        params.grad_k = grad_k.view();
        params.grad_v = grad_v.view();
        params.grad_history = grad_history.state_view();
        params.grad_decay_rate = grad_rate.data();
        return params;
    }

    void run_forward() {
        const lattn_forward_params params = forward_params();
        ASSERT_EQ(LATTN_OK, lattn_forward(&params)) << lattn_last_error();
    }

    void run_backward() {
        const lattn_backward_params params = backward_params();
        ASSERT_EQ(LATTN_OK, lattn_backward(&params)) << lattn_last_error();
    }

    void expect_forward() const {
        const Outputs expected = reference::forward(case_.sizes, reference_inputs());
        expect_output(expected);
        EXPECT_TRUE(matches_states(states, expected.states)) << "states: " << case_;
    }
    void expect_output(const Outputs& expected) const {
        EXPECT_TRUE(matches_rows(output, expected.output)) << "output: " << case_;
    }

    Gradients expected_gradients(bool with_grad_output = true, bool with_grad_states = true) const {
        std::vector<double> outputs = grad_output.values();
        std::vector<double> finals = grad_states.values();
        if (!with_grad_output) std::fill(outputs.begin(), outputs.end(), 0.0);
        if (!with_grad_states) std::fill(finals.begin(), finals.end(), 0.0);
        return reference::backward(case_.sizes, reference_inputs(), outputs, finals);
    }

    void expect_grad_q(const Gradients& expected) const {
        EXPECT_TRUE(matches_rows(grad_q, expected.q)) << "grad_q: " << case_;
    }
    void expect_grad_k(const Gradients& expected) const {
        EXPECT_TRUE(matches_rows(grad_k, expected.k)) << "grad_k: " << case_;
    }
    void expect_grad_v(const Gradients& expected) const {
        EXPECT_TRUE(matches_rows(grad_v, expected.v)) << "grad_v: " << case_;
    }
    void expect_grad_history(const Gradients& expected) const {
        EXPECT_TRUE(matches_states(grad_history, expected.history)) << "grad_history: " << case_;
    }
    // One number per head that may cancel: judged against the magnitude of what is summed. What lies below the
    // normal numbers of float32, as terms with exp(-100) do, has too few bits to be judged.
    void expect_grad_rate(const Gradients& expected) const {
        const std::vector<double> actual = grad_rate.values();
        const lattn_dtype type = state_dtype_of(case_.dtype);
        const Limits allowed = limits();
        const double subnormal = type == LATTN_FLOAT64 ? 0 : static_cast<double>(std::numeric_limits<float>::min());
        for (std::size_t head = 0; head < expected.rate.size(); ++head)
            EXPECT_LE(std::abs(actual[head] - expected.rate[head]),
                      allowed.rate_magnitude * expected.rate_magnitude[head] +
                          allowed.rate_spread * expected.rate_spread[head] + subnormal)
                << "grad_decay_rate[" << head << "] = " << actual[head] << ", expected " << expected.rate[head]
                << " of terms " << expected.rate_magnitude[head] << ": " << case_;
    }

    void expect_backward() const { expect_backward(expected_gradients()); }
    void expect_backward(const Gradients& expected) const {
        expect_grad_q(expected);
        expect_grad_k(expected);
        expect_grad_v(expected);
        expect_grad_history(expected);
        expect_grad_rate(expected);
    }

    // Inputs unchanged is implied by their guards only around them, so their bytes are compared too.
    void expect_guards_intact() {
        for (Tensor* input : inputs()) EXPECT_TRUE(input->guards_intact()) << case_;
        for (Tensor* result : results()) EXPECT_TRUE(result->guards_intact()) << case_;
    }

private:
    static Tensor tensor(lattn_dtype dtype, std::vector<int64_t> sizes, Layout layout) {
        return Tensor(dtype, std::move(sizes), layout);
    }
    std::vector<int64_t> key_sizes() const {
        const Sizes& s = case_.sizes;
        return {s.batch, s.heads_qk, s.tokens, s.head_dim_qk};
    }
    std::vector<int64_t> value_sizes() const {
        const Sizes& s = case_.sizes;
        return {s.batch, s.heads_v, s.tokens, s.head_dim_v};
    }
    std::vector<int64_t> history_sizes() const {
        const Sizes& s = case_.sizes;
        return {s.batch, s.heads_v, s.head_dim_qk, s.head_dim_v};
    }
    std::vector<int64_t> states_sizes() const {
        const Sizes& s = case_.sizes;
        return {s.batch, s.heads_v, s.state_count(), s.head_dim_qk, s.head_dim_v};
    }
    std::vector<int64_t> for_backward(std::vector<int64_t> sizes) const {
        if (!case_.backward) sizes[0] = 0;
        return sizes;
    }

    Limits limits() const { return limits_on(case_.device_type, case_.dtype, case_.allow_tf32); }

    // Of rows of tokens, by windows of 16 tokens where the sequence divides so, else by whole heads.
    ::testing::AssertionResult matches_rows(const Tensor& actual, const std::vector<double>& expected) const {
        const int64_t tokens = case_.sizes.tokens;
        const int64_t window = std::max<int64_t>(tokens % 16 == 0 ? 16 : tokens, 1);
        return matches(actual.values(), expected, case_.dtype, window * actual.sizes().back(), limits().elements);
    }
    ::testing::AssertionResult matches_states(const Tensor& actual, const std::vector<double>& expected) const {
        return matches(actual.values(), expected, state_dtype_of(case_.dtype),
                       case_.sizes.head_dim_qk * case_.sizes.head_dim_v, limits().states);
    }

    // What forward and backward parameters have in common.
    template <typename Params>
    Params with_inputs() {
        Params params = {};
        params.struct_size = sizeof(params);
        params.problem = problem();
        params.q = q.view();
        params.k = k.view();
        params.v = v.view();
        params.decay_rate = rate.data();
        if (case_.history) params.history = history.state_view();
        return params;
    }

    lattn_problem problem() const {
        const Sizes& s = case_.sizes;
        lattn_problem p = {};
        p.batch = s.batch;
        p.heads_qk = s.heads_qk;
        p.heads_v = s.heads_v;
        p.tokens = s.tokens;
        p.head_dim_qk = s.head_dim_qk;
        p.head_dim_v = s.head_dim_v;
        p.block_size = s.block_size;
        p.state_count = s.state_count();
        p.scale = case_.scale;
        p.dtype = case_.dtype;
        p.device_type = case_.device_type;
        p.cuda_path = case_.cuda_path;
        p.allow_tf32 = case_.allow_tf32;
        return p;
    }

    Case case_;

public:
    Tensor q, k, v, rate, history, grad_output, grad_states;
    Tensor output, states, grad_q, grad_k, grad_v, grad_history, grad_rate;
};

inline void advance(const void*& data, int64_t elements, lattn_dtype dtype) {
    if (data != nullptr) data = static_cast<const char*>(data) + elements * static_cast<int64_t>(bytes_of(dtype));
}

inline void advance(void*& data, int64_t elements, lattn_dtype dtype) {
    if (data != nullptr) data = static_cast<char*>(data) + elements * static_cast<int64_t>(bytes_of(dtype));
}

// A call for sequence `index` of the batch alone.
inline lattn_forward_params sequence_of(lattn_forward_params params, int64_t index) {
    const lattn_dtype dtype = params.problem.dtype, state_dtype = state_dtype_of(dtype);
    params.problem.batch = 1;
    for (lattn_view* view : {&params.q, &params.k, &params.v, &params.output})
        advance(view->data, index * view->stride_b, dtype);
    advance(params.history.data, index * params.history.stride_b, state_dtype);
    advance(params.states.data, index * params.states.stride_b, state_dtype);
    return params;
}

inline lattn_backward_params sequence_of(lattn_backward_params params, int64_t index) {
    const lattn_dtype dtype = params.problem.dtype, state_dtype = state_dtype_of(dtype);
    params.problem.batch = 1;
    for (lattn_view* view :
         {&params.q, &params.k, &params.v, &params.grad_output, &params.grad_q, &params.grad_k, &params.grad_v})
        advance(view->data, index * view->stride_b, dtype);
    for (lattn_state_view* view : {&params.history, &params.grad_history})
        advance(view->data, index * view->stride_b, state_dtype);
    advance(params.grad_states.data, index * params.grad_states.stride_b, state_dtype);
    return params;
}

// A call for value head `index` alone.
inline lattn_forward_params head_of(lattn_forward_params params, int64_t index) {
    const lattn_dtype dtype = params.problem.dtype, state_dtype = state_dtype_of(dtype);
    const int64_t index_qk = index / (params.problem.heads_v / params.problem.heads_qk);
    params.problem.heads_qk = params.problem.heads_v = 1;
    for (lattn_view* view : {&params.q, &params.k}) advance(view->data, index_qk * view->stride_h, dtype);
    for (lattn_view* view : {&params.v, &params.output}) advance(view->data, index * view->stride_h, dtype);
    advance(params.decay_rate, index, state_dtype);
    advance(params.history.data, index * params.history.stride_h, state_dtype);
    advance(params.states.data, index * params.states.stride_h, state_dtype);
    return params;
}

// A call for `count` tokens from `first` on. History and states stay the caller's business.
inline lattn_forward_params tokens_of(lattn_forward_params params, int64_t first, int64_t count) {
    params.problem.tokens = count;
    for (lattn_view* view : {&params.q, &params.k, &params.v, &params.output})
        advance(view->data, first * view->stride_n, params.problem.dtype);
    return params;
}

// The last of the states, as a history.
inline lattn_state_view final_state(const lattn_forward_params& params) {
    const lattn_states_view& all = params.states;
    lattn_state_view last = {all.data, all.stride_b, all.stride_h, all.stride_d, all.stride_e};
    advance(last.data, (params.problem.state_count - 1) * all.stride_block, state_dtype_of(params.problem.dtype));
    return last;
}

} // namespace lattn::test
