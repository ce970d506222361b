// A decode call with its tensors, judged by the float64 recurrence.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <vector>

#include "problem.h"

namespace lattn::test {

struct DecodeCase {
    lattn_dtype dtype = LATTN_FLOAT32;
    lattn_dtype state_dtype = LATTN_FLOAT32;
    int64_t heads_qk = 2;
    int64_t heads_v = 2;
    int64_t d = 16;
    int64_t e = 24;
    int64_t slot_count = 6;
    std::vector<int64_t> slots = {4, 0, 3};
    int64_t tokens = 1;
    std::vector<int64_t> accepted = {}; // empty: all tokens
    bool with_output = true;
    bool with_state = true;
    Layout layout = Layout::kContiguous;
    Layout state_layout = Layout::kContiguous;
    double scale = 0.5;
    lattn_device_type device_type = LATTN_CPU;
};

inline std::ostream& operator<<(std::ostream& out, const DecodeCase& c) {
    out << (c.device_type == LATTN_CUDA ? "CUDA " : "CPU ") << name_of(c.dtype) << " state " << name_of(c.state_dtype)
        << " Hk=" << c.heads_qk << " Hv=" << c.heads_v << " D=" << c.d << " E=" << c.e
        << " layouts=" << static_cast<int>(c.layout) << static_cast<int>(c.state_layout) << " slots=";
    for (int64_t slot : c.slots) out << slot << ",";
    out << " Td=" << c.tokens << " accepted=";
    for (int64_t accepted : c.accepted) out << accepted << ",";
    return out;
}

class Decode {
public:
    explicit Decode(const DecodeCase& c)
        : c_(c),
          batch_(static_cast<int64_t>(c.slots.size())),
          q(c.dtype, {batch_, c.heads_qk, c.tokens, c.d}, c.layout),
          k(c.dtype, {batch_, c.heads_qk, c.tokens, c.d}, c.layout),
          v(c.dtype, {batch_, c.heads_v, c.tokens, c.e}, c.layout),
          output(c.dtype, {batch_, c.heads_v, c.tokens, c.e}, c.layout),
          rate(state_dtype_of(c.dtype), {c.heads_v}),
          state_in(c.state_dtype, {c.slot_count, c.heads_v, c.d, c.e}, c.state_layout, Tensor::Kind::kState),
          state_out(c.state_dtype, {c.slot_count, c.heads_v, c.d, c.e}, c.state_layout, Tensor::Kind::kState) {
        std::mt19937 random(5);
        for (Tensor* input : {&q, &k, &v, &state_in}) input->assign(random_values(input->count(), random));
        std::vector<double> rates;
        for (int64_t head = 0; head < c.heads_v; ++head) rates.push_back(head % 2 == 0 ? 0.3 : 0.0);
        rate.assign(rates);
        output.poison();
        state_out.poison();
        slots32_.assign(c.slots.begin(), c.slots.end());
        accepted32_.assign(c.accepted.begin(), c.accepted.end());
    }

    lattn_decode_params params(lattn_dtype slot_dtype = LATTN_INT64) {
        lattn_decode_params p = {};
        p.struct_size = sizeof(p);
        p.batch = batch_;
        p.heads_qk = c_.heads_qk;
        p.heads_v = c_.heads_v;
        p.head_dim_qk = c_.d;
        p.head_dim_v = c_.e;
        p.slot_count = c_.slot_count;
        p.scale = c_.scale;
        p.dtype = c_.dtype;
        p.state_dtype = c_.state_dtype;
        p.slot_dtype = slot_dtype;
        p.device_type = c_.device_type;
        p.tokens = static_cast<int32_t>(c_.tokens);
        p.q = q.view();
        p.k = k.view();
        p.v = v.view();
        if (c_.with_output) p.output = output.view();
        p.decay_rate = rate.data();
        p.state_in = state_in.state_view();
        if (c_.with_state) p.state_out = state_out.state_view();
        p.slots = slot_dtype == LATTN_INT32 ? static_cast<const void*>(slots32_.data())
                                            : static_cast<const void*>(c_.slots.data());
        if (c_.accepted.empty()) return p;
        p.accepted_dtype = slot_dtype;
        p.accepted = slot_dtype == LATTN_INT32 ? static_cast<const void*>(accepted32_.data())
                                               : static_cast<const void*>(c_.accepted.data());
        return p;
    }

    // The tokens that row takes: none where its slot is none, or on CUDA out of range.
    int64_t tokens_of(int64_t row) const {
        const int64_t slot = c_.slots[static_cast<std::size_t>(row)];
        if (slot < 0 || slot >= c_.slot_count) return 0;
        if (c_.accepted.empty()) return c_.tokens;
        return std::clamp<int64_t>(c_.accepted[static_cast<std::size_t>(row)], 0, c_.tokens);
    }

    // Outputs of tokens that are not taken are zeros. `before` is the pool that was read, `after` the one that was
    // written, `untouched` what it held where no slot is.
    void expect(const std::vector<double>& before, const std::vector<double>& after,
                const std::vector<double>& untouched) const {
        const std::vector<double> queries = q.values(), keys = k.values(), values = v.values(), rates = rate.values();
        const int64_t state_elements = c_.d * c_.e;
        std::vector<double> expected_output, expected_states = untouched;
        const auto at = [](int64_t i) { return static_cast<std::size_t>(i); };
        for (int64_t row = 0; row < batch_; ++row) {
            const int64_t slot = c_.slots[at(row)];
            for (int64_t head = 0; head < c_.heads_v; ++head) {
                const int64_t qk = (row * c_.heads_qk + head / (c_.heads_v / c_.heads_qk)) * c_.tokens;
                const int64_t value = (row * c_.heads_v + head) * c_.tokens;
                const double g = std::exp(-rates[at(head)]);
                std::vector<double> outputs(at(c_.tokens * c_.e), 0.0);
                for (int64_t i = 0; slot >= 0 && slot < c_.slot_count && i < state_elements; ++i) {
                    const int64_t d = i / c_.e, e = i % c_.e;
                    const int64_t index = (slot * c_.heads_v + head) * state_elements + i;
                    double state = before[at(index)];
                    for (int64_t t = 0; t < tokens_of(row); ++t) {
                        state = g * state + keys[at((qk + t) * c_.d + d)] * values[at((value + t) * c_.e + e)];
                        outputs[at(t * c_.e + e)] += c_.scale * state * queries[at((qk + t) * c_.d + d)];
                    }
                    if (c_.with_state) expected_states[at(index)] = state;
                }
                expected_output.insert(expected_output.end(), outputs.begin(), outputs.end());
            }
        }
        if (c_.with_output) {
            EXPECT_TRUE(matches(output.values(), expected_output, c_.dtype, c_.e)) << "output: " << c_;
        }
        // NaN marks the untouched part of a poisoned pool.
        std::vector<double> written, expected;
        for (std::size_t i = 0; i < after.size(); ++i) {
            EXPECT_EQ(std::isnan(expected_states[i]), std::isnan(after[i])) << "state element " << i << ": " << c_;
            if (std::isnan(expected_states[i])) continue;
            expected.push_back(expected_states[i]);
            written.push_back(after[i]);
        }
        EXPECT_TRUE(matches(written, expected, c_.state_dtype, state_elements)) << "states: " << c_;
    }

    void expect_guards_intact() const {
        for (const Tensor* tensor : {&q, &k, &v, &output, &rate, &state_in, &state_out})
            EXPECT_TRUE(tensor->guards_intact()) << c_;
    }

    std::vector<int64_t>& slots() { return c_.slots; }
    std::vector<int32_t>& slots32() { return slots32_; }
    std::vector<int64_t>& accepted() { return c_.accepted; }
    std::vector<int32_t>& accepted32() { return accepted32_; }

private:
    DecodeCase c_;
    int64_t batch_;
    std::vector<int32_t> slots32_, accepted32_;

public:
    Tensor q, k, v, output, rate, state_in, state_out;
};

} // namespace lattn::test
