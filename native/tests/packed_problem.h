// A packed batch with its tensors, judged by each sequence alone (the same bits) and by the float64 recurrence.
#pragma once

#include <gtest/gtest.h>

#include <random>
#include <span>
#include <vector>

#include "problem.h"

namespace lattn::test {

struct PackedCase {
    lattn_dtype dtype = LATTN_FLOAT32;
    std::vector<int64_t> lengths = {65, 0, 1, 130};
    int64_t before = 0; // tokens of padding
    int64_t after = 0;
    int64_t heads_qk = 2;
    int64_t heads_v = 2;
    int64_t d = 16;
    int64_t e = 24;
    std::vector<double> rates = {0.02, 0.4}; // repeated over the heads
    double scale = 0.5;
    lattn_dtype offset_dtype = LATTN_INT64;
    Layout layout = Layout::kContiguous;
    // The pool, if there are slots.
    lattn_dtype state_dtype = LATTN_FLOAT32;
    int64_t slot_count = 0;
    std::vector<int64_t> slots;
    std::vector<uint8_t> has_initial; // empty: NULL
    lattn_dtype slot_dtype = LATTN_INT64;
    Layout state_layout = Layout::kContiguous;
    bool poison_padding = true; // with NaN
    lattn_device_type device_type = LATTN_CPU;
    lattn_cuda_path cuda_path = LATTN_CUDA_PATH_AUTOMATIC;
    bool allow_tf32 = false;
};

inline std::ostream& operator<<(std::ostream& out, const PackedCase& c) {
    out << (c.device_type == LATTN_CUDA ? "CUDA " : "CPU ") << name_of(c.dtype) << " path=" << c.cuda_path
        << " Hk=" << c.heads_qk << " Hv=" << c.heads_v << " D=" << c.d << " E=" << c.e << " lengths=" << c.before
        << "|";
    for (int64_t length : c.lengths) out << length << ",";
    out << "|" << c.after << " layouts=" << static_cast<int>(c.layout) << static_cast<int>(c.state_layout);
    if (c.slot_count > 0) out << " pool of " << name_of(c.state_dtype) << " slots=";
    for (int64_t slot : c.slots) out << slot << ",";
    return out;
}

class Packed {
public:
    explicit Packed(const PackedCase& c)
        : c_(c),
          count_(static_cast<int64_t>(c.lengths.size())),
          tokens_(std::accumulate(c.lengths.begin(), c.lengths.end(), c.before + c.after)),
          q(c.dtype, {1, c.heads_qk, tokens_, c.d}, c.layout),
          k(c.dtype, {1, c.heads_qk, tokens_, c.d}, c.layout),
          v(c.dtype, {1, c.heads_v, tokens_, c.e}, c.layout),
          grad_output(c.dtype, {1, c.heads_v, tokens_, c.e}, c.layout),
          rate(test::state_dtype_of(c.dtype), {c.heads_v}),
          pool(c.state_dtype, {c.slot_count, c.heads_v, c.d, c.e}, c.state_layout, Tensor::Kind::kState),
          output(c.dtype, {1, c.heads_v, tokens_, c.e}, c.layout),
          grad_q(c.dtype, {1, c.heads_qk, tokens_, c.d}, c.layout),
          grad_k(c.dtype, {1, c.heads_qk, tokens_, c.d}, c.layout),
          grad_v(c.dtype, {1, c.heads_v, tokens_, c.e}, c.layout),
          grad_rate(test::state_dtype_of(c.dtype), {c.heads_v}),
          histories(test::state_dtype_of(c.dtype), {count_, c.heads_v, c.d, c.e}),
          finals(test::state_dtype_of(c.dtype), {count_, c.heads_v, 1, c.d, c.e}) {
        std::mt19937 random(7);
        for (Tensor* input : {&q, &k, &v, &grad_output}) {
            std::vector<double> values = random_values(input->count(), random);
            if (c.poison_padding) poison_padding(values, input->sizes()[1], input->sizes()[3]);
            input->assign(values);
        }
        std::vector<double> rates;
        for (int64_t head = 0; head < c.heads_v; ++head)
            rates.push_back(c.rates[static_cast<std::size_t>(head) % c.rates.size()]);
        rate.assign(rates);
        set_states(random);
        offsets_.push_back(c.before);
        for (int64_t length : c.lengths) offsets_.push_back(offsets_.back() + length);
        offsets64_ = offsets_;
        offsets32_.assign(offsets_.begin(), offsets_.end());
        slots64_ = c.slots;
        slots32_.assign(c.slots.begin(), c.slots.end());
        has_initial_ = c.has_initial;
        for (Tensor* result : {&output, &grad_q, &grad_k, &grad_v, &grad_rate, &finals}) result->poison();
    }

    const PackedCase& description() const { return c_; }
    int64_t count() const { return count_; }
    bool is_active(int64_t index) const { return !has_pool() || slot(index) >= 0; }

    std::vector<std::span<unsigned char>> inputs() {
        std::vector<std::span<unsigned char>> all;
        for (Tensor* tensor : {&q, &k, &v, &grad_output, &rate, &histories}) all.push_back(tensor->storage());
        all.push_back(bytes(offsets64_));
        all.push_back(bytes(offsets32_));
        all.push_back(bytes(slots64_));
        all.push_back(bytes(slots32_));
        all.push_back(bytes(has_initial_));
        return all;
    }
    std::vector<std::span<unsigned char>> results() {
        std::vector<std::span<unsigned char>> all;
        for (Tensor* tensor : {&pool, &output, &grad_q, &grad_k, &grad_v, &grad_rate, &finals})
            all.push_back(tensor->storage());
        return all;
    }

    lattn_forward_params forward_params() {
        auto params = with_inputs<lattn_forward_params>();
        params.output = output.view();
        if (!has_pool()) return params;
        params.pool.states = pool.state_view();
        params.pool.slot_count = c_.slot_count;
        params.pool.state_dtype = c_.state_dtype;
        params.pool.slot_dtype = c_.slot_dtype;
        params.pool.slots = c_.slot_dtype == LATTN_INT32 ? static_cast<const void*>(slots32_.data())
                                                         : static_cast<const void*>(slots64_.data());
        if (!has_initial_.empty()) params.pool.has_initial = has_initial_.data();
        return params;
    }

    lattn_backward_params backward_params() {
        auto params = with_inputs<lattn_backward_params>();
        params.grad_output = grad_output.view();
        params.grad_q = grad_q.view();
        params.grad_k = grad_k.view();
        params.grad_v = grad_v.view();
        params.grad_decay_rate = grad_rate.data();
        return params;
    }

    // The call for sequence `index` alone, on the same memory; its final state goes to `finals`.
    lattn_forward_params forward_of(int64_t index) {
        lattn_forward_params params = alone(forward_params(), index);
        params.pool = {};
        advance(params.output.data, offsets_[at(index)] * params.output.stride_n, c_.dtype);
        const lattn_dtype state_dtype = test::state_dtype_of(c_.dtype);
        if (has_pool() && !starts_from_zeros(index)) {
            params.history = histories.state_view();
            advance(params.history.data, index * params.history.stride_b, state_dtype);
        }
        params.states = finals.states_view();
        advance(params.states.data, index * params.states.stride_b, state_dtype);
        return params;
    }

    lattn_backward_params backward_of(int64_t index) {
        lattn_backward_params params = alone(backward_params(), index);
        for (lattn_view* view : {&params.grad_output, &params.grad_q, &params.grad_k, &params.grad_v})
            advance(view->data, offsets_[at(index)] * view->stride_n, c_.dtype);
        return params;
    }

    // For the calls of single sequences: they leave padding alone, where a packed call writes zeros.
    void clear_results() {
        for (Tensor* result : {&output, &grad_q, &grad_k, &grad_v})
            result->assign(std::vector<double>(static_cast<std::size_t>(result->count()), 0.0));
    }

    // This packed call's results are those of every sequence alone, bit for bit; the pool's is the final state rounded
    // once. The rates' gradients are sums over the sequences, in one order or another.
    void expect_forward_as(const Packed& alone) const {
        EXPECT_EQ(alone.output.bytes(), output.bytes()) << "output: " << c_;
        EXPECT_EQ(alone.pool_after().bytes(), pool.bytes()) << "pool: " << c_;
    }
    void expect_backward_as(const Packed& alone) const {
        EXPECT_EQ(alone.grad_q.bytes(), grad_q.bytes()) << "grad_q: " << c_;
        EXPECT_EQ(alone.grad_k.bytes(), grad_k.bytes()) << "grad_k: " << c_;
        EXPECT_EQ(alone.grad_v.bytes(), grad_v.bytes()) << "grad_v: " << c_;
    }

    // Against the recurrence of every sequence.
    void expect_forward() const {
        Judged of_output;
        for (int64_t index = 0; index < count_; ++index)
            if (is_active(index))
                of_output.add(values_of(output, index),
                              reference::forward(sizes(index), reference_inputs(index)).output);
        expect_close("output", of_output, c_.e);
    }
    void expect_backward() const {
        std::vector<double> sum(static_cast<std::size_t>(c_.heads_v)), magnitude = sum, spread = sum;
        const std::vector<double> no_state_grads(at(c_.heads_v * c_.d * c_.e), 0.0);
        Judged of_q, of_k, of_v;
        for (int64_t index = 0; index < count_; ++index) {
            const Gradients expected = reference::backward(sizes(index), reference_inputs(index),
                                                           values_of(grad_output, index), no_state_grads);
            of_q.add(values_of(grad_q, index), expected.q);
            of_k.add(values_of(grad_k, index), expected.k);
            of_v.add(values_of(grad_v, index), expected.v);
            for (std::size_t head = 0; head < sum.size(); ++head) {
                sum[head] += expected.rate[head];
                magnitude[head] += expected.rate_magnitude[head];
                spread[head] += expected.rate_spread[head];
            }
        }
        expect_close("grad_q", of_q, c_.d);
        expect_close("grad_k", of_k, c_.d);
        expect_close("grad_v", of_v, c_.e);
        // As in Problem::expect_grad_rate: what lies below the normal numbers has too few bits to be judged.
        const double subnormal = c_.dtype == LATTN_FLOAT64 ? 0 : static_cast<double>(std::numeric_limits<float>::min());
        const std::vector<double> actual = grad_rate.values();
        for (std::size_t head = 0; head < sum.size(); ++head)
            EXPECT_LE(std::abs(actual[head] - sum[head]),
                      limits().rate_magnitude * magnitude[head] + limits().rate_spread * spread[head] + subnormal)
                << "grad_decay_rate[" << head << "] = " << actual[head] << ", expected " << sum[head] << ": " << c_;
    }

    void expect_guards_intact() const {
        for (const Tensor* tensor :
             {&q, &k, &v, &grad_output, &rate, &pool, &output, &grad_q, &grad_k, &grad_v, &grad_rate})
            EXPECT_TRUE(tensor->guards_intact()) << c_;
    }

    // What calls are given, where their types are int64. The problem's own idea of itself does not follow.
    std::vector<int64_t>& offsets() { return offsets64_; }
    std::vector<int64_t>& slots() { return slots64_; }

private:
    // The rows of all sequences, one after the other.
    struct Judged {
        std::vector<double> actual, expected;

        void add(const std::vector<double>& values, const std::vector<double>& truth) {
            actual.insert(actual.end(), values.begin(), values.end());
            expected.insert(expected.end(), truth.begin(), truth.end());
        }
    };

    // By windows of 16 rows, as Problem does it.
    void expect_close(const char* name, const Judged& judged, int64_t columns) const {
        EXPECT_TRUE(matches(judged.actual, judged.expected, c_.dtype, 16 * columns, limits().elements))
            << name << ": " << c_;
    }

    static std::size_t at(int64_t index) { return static_cast<std::size_t>(index); }

    template <typename T>
    static std::span<unsigned char> bytes(std::vector<T>& values) {
        return {reinterpret_cast<unsigned char*>(values.data()), values.size() * sizeof(T)};
    }

    bool has_pool() const { return c_.slot_count > 0; }
    // What is outside the pool is padding on CUDA, and refused on the CPU.
    int64_t slot(int64_t index) const {
        const int64_t slot = c_.slots[at(index)];
        return slot < c_.slot_count ? slot : -1;
    }
    bool starts_from_zeros(int64_t index) const { return !c_.has_initial.empty() && c_.has_initial[at(index)] == 0; }

    // What no sequence may read: the padding around the sequences and the tokens of one without a slot.
    void poison_padding(std::vector<double>& values, int64_t heads, int64_t columns) const {
        std::vector<bool> padding(at(tokens_), true);
        int64_t first = c_.before;
        for (int64_t index = 0; index < count_; first += c_.lengths[at(index++)])
            for (int64_t token = first; is_active(index) && token < first + c_.lengths[at(index)]; ++token)
                padding[at(token)] = false;
        for (int64_t row = 0; row < heads * tokens_; ++row)
            if (padding[at(row % tokens_)])
                std::fill_n(values.begin() + row * columns, columns, std::numeric_limits<double>::quiet_NaN());
    }

    // Random states where one is read, NaN in the slots of sequences that start from zeros.
    void set_states(std::mt19937& random) {
        const int64_t elements = c_.heads_v * c_.d * c_.e;
        std::vector<double> states = random_values(pool.count(), random);
        for (int64_t index = 0; has_pool() && index < count_; ++index)
            if (is_active(index) && starts_from_zeros(index))
                std::fill_n(states.begin() + slot(index) * elements, elements,
                            std::numeric_limits<double>::quiet_NaN());
        pool.assign(states);
        const std::vector<double> rounded_states = pool.values();
        std::vector<double> initial(at(count_ * elements), 0.0);
        for (int64_t index = 0; has_pool() && index < count_; ++index)
            if (is_active(index) && !starts_from_zeros(index))
                std::copy_n(rounded_states.begin() + slot(index) * elements, elements,
                            initial.begin() + index * elements);
        histories.assign(initial);
    }

    // The pool as it must be after the call, from the final states of the sequences alone.
    Tensor pool_after() const {
        const int64_t elements = c_.heads_v * c_.d * c_.e;
        std::vector<double> states = pool.values();
        const std::vector<double> last = finals.values();
        for (int64_t index = 0; has_pool() && index < count_; ++index)
            if (is_active(index))
                std::copy_n(last.begin() + index * elements, elements, states.begin() + slot(index) * elements);
        Tensor result(c_.state_dtype, pool.sizes(), c_.state_layout, Tensor::Kind::kState);
        result.assign(states);
        return result;
    }

    // The Hopper path takes no empty problem: it is an error where that path is asked for.
    lattn_cuda_path path_of(int64_t tokens) const { return tokens > 0 ? c_.cuda_path : LATTN_CUDA_PATH_AUTOMATIC; }

    template <typename Params>
    Params with_inputs() {
        Params params = {};
        params.struct_size = sizeof(params);
        lattn_problem& p = params.problem;
        p.batch = count_;
        p.heads_qk = c_.heads_qk;
        p.heads_v = c_.heads_v;
        p.tokens = tokens_;
        p.head_dim_qk = c_.d;
        p.head_dim_v = c_.e;
        p.block_size = 64;
        p.state_count = 1;
        p.scale = c_.scale;
        p.dtype = c_.dtype;
        p.device_type = c_.device_type;
        p.cuda_path = path_of(count_ > 0 ? p.tokens : 0);
        p.allow_tf32 = c_.allow_tf32;
        p.cu_seqlens_dtype = c_.offset_dtype;
        p.cu_seqlens = c_.offset_dtype == LATTN_INT32 ? static_cast<const void*>(offsets32_.data())
                                                      : static_cast<const void*>(offsets64_.data());
        params.q = q.view();
        params.k = k.view();
        params.v = v.view();
        params.decay_rate = rate.data();
        return params;
    }

    template <typename Params>
    Params alone(Params params, int64_t index) const {
        params.problem.batch = 1;
        params.problem.tokens = c_.lengths[at(index)];
        params.problem.cuda_path = path_of(params.problem.tokens);
        params.problem.cu_seqlens = nullptr;
        for (lattn_view* view : {&params.q, &params.k, &params.v})
            advance(view->data, offsets_[at(index)] * view->stride_n, c_.dtype);
        return params;
    }

    Sizes sizes(int64_t index) const {
        return sizes_of(1, c_.heads_qk, c_.heads_v, c_.lengths[at(index)], c_.d, c_.e, 64, false);
    }

    // [1, H, length, X] of one sequence.
    std::vector<double> values_of(const Tensor& tensor, int64_t index) const {
        const std::vector<double> all = tensor.values();
        const int64_t heads = tensor.sizes()[1], columns = tensor.sizes()[3];
        std::vector<double> result;
        for (int64_t head = 0; head < heads; ++head) {
            const auto begin = all.begin() + (head * tokens_ + offsets_[at(index)]) * columns;
            result.insert(result.end(), begin, begin + c_.lengths[at(index)] * columns);
        }
        return result;
    }

    Inputs reference_inputs(int64_t index) const {
        const int64_t elements = c_.heads_v * c_.d * c_.e;
        const std::vector<double> states = histories.values();
        Inputs in;
        in.q = values_of(q, index);
        in.k = values_of(k, index);
        in.v = values_of(v, index);
        in.rate = rate.values();
        in.history.assign(states.begin() + index * elements, states.begin() + (index + 1) * elements);
        in.scale = c_.scale;
        return in;
    }

    Limits limits() const { return limits_on(c_.device_type, c_.dtype, c_.allow_tf32); }

    PackedCase c_;
    int64_t count_;
    int64_t tokens_;
    std::vector<int64_t> offsets_;
    // What calls are given, which a mirror keeps from the host.
    std::vector<int64_t> offsets64_, slots64_;
    std::vector<int32_t> offsets32_, slots32_;
    std::vector<uint8_t> has_initial_;

public:
    Tensor q, k, v, grad_output, rate, pool;
    Tensor output, grad_q, grad_k, grad_v, grad_rate;
    Tensor histories, finals; // [n, Hv, D, E], of the sequences alone
};

// Runs a packed call, and every sequence alone, and judges the results. run(packed, calls) calls calls(caller) with
// what makes calls on the memory of `packed`: caller.forward(params), caller.backward(params).
template <typename Run>
void check_packed_forward(const PackedCase& c, Run run) {
    Packed together(c), alone(c);
    run(together, [&](auto& caller) { caller.forward(together.forward_params()); });
    alone.clear_results();
    run(alone, [&](auto& caller) {
        for (int64_t index = 0; index < alone.count(); ++index)
            if (alone.is_active(index)) caller.forward(alone.forward_of(index));
    });
    together.expect_forward_as(alone);
    together.expect_forward();
    together.expect_guards_intact();
}

template <typename Run>
void check_packed_backward(const PackedCase& c, Run run) {
    Packed together(c), alone(c);
    run(together, [&](auto& caller) { caller.backward(together.backward_params()); });
    alone.clear_results();
    run(alone, [&](auto& caller) {
        for (int64_t index = 0; index < alone.count(); ++index) caller.backward(alone.backward_of(index));
    });
    together.expect_backward_as(alone);
    together.expect_backward();
    together.expect_guards_intact();
}

} // namespace lattn::test
