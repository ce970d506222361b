// The float64 token recurrence, one token after the other, and its adjoint. Dense row-major arrays, no chunks, no
// blocking: it shares no idea with the kernels beyond the formula
//
//     S_t = g S_(t-1) + k_t (x) v_t,    o_t = scale S_t^T q_t,    g = exp(-s)
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace lattn::test {

struct Sizes {
    int64_t batch = 1;
    int64_t heads_qk = 1;
    int64_t heads_v = 1;
    int64_t tokens = 1;
    int64_t head_dim_qk = 8;
    int64_t head_dim_v = 8;
    int64_t block_size = 64;
    bool block_states = true; // all states, not the final one alone

    int64_t blocks() const { return (tokens + block_size - 1) / block_size; }
    int64_t state_count() const { return block_states ? blocks() + 1 : 1; }
};

struct Inputs {
    std::vector<double> q;       // [B, Hk, N, D]
    std::vector<double> k;       // [B, Hk, N, D]
    std::vector<double> v;       // [B, Hv, N, E]
    std::vector<double> rate;    // [Hv]
    std::vector<double> history; // [B, Hv, D, E]
    double scale = 1;
};

struct Outputs {
    std::vector<double> output; // [B, Hv, N, E]
    std::vector<double> states; // [B, Hv, state_count, D, E]
};

struct Gradients {
    std::vector<double> q, k, v, history, rate;
    // Per head: the sum of the magnitudes of the terms whose sum is the rate's gradient, one term per token.
    std::vector<double> rate_magnitude;
    // A token's term is itself a sum, of D E products: the sum over tokens of the norms of these products.
    std::vector<double> rate_spread;
};

namespace reference {

inline std::size_t at(int64_t index) {
    return static_cast<std::size_t>(index);
}

// The arrays of one (batch, value head).
struct Head {
    Head(const Sizes& sizes, int64_t batch, int64_t head)
        : qk(((batch * sizes.heads_qk + head / (sizes.heads_v / sizes.heads_qk)) * sizes.tokens) * sizes.head_dim_qk),
          v((batch * sizes.heads_v + head) * sizes.tokens * sizes.head_dim_v),
          state((batch * sizes.heads_v + head) * sizes.head_dim_qk * sizes.head_dim_v),
          states(state * sizes.state_count()) {}

    int64_t qk;     // offset in q, k
    int64_t v;      // offset in v, output
    int64_t state;  // offset in history
    int64_t states; // offset in states
};

// Every state S_0 .. S_N of one head.
inline std::vector<std::vector<double>> all_states(const Sizes& sizes, const Inputs& in, const Head& head, double g) {
    const int64_t D = sizes.head_dim_qk, E = sizes.head_dim_v;
    std::vector<std::vector<double>> states(at(sizes.tokens + 1), std::vector<double>(at(D * E)));
    for (int64_t i = 0; i < D * E; ++i) states[0][at(i)] = in.history[at(head.state + i)];
    for (int64_t t = 0; t < sizes.tokens; ++t)
        for (int64_t d = 0; d < D; ++d)
            for (int64_t e = 0; e < E; ++e)
                states[at(t + 1)][at(d * E + e)] =
                    g * states[at(t)][at(d * E + e)] + in.k[at(head.qk + t * D + d)] * in.v[at(head.v + t * E + e)];
    return states;
}

// The token before which entry `index` of the returned states stands.
inline int64_t token_of_state(const Sizes& sizes, int64_t index) {
    return index + 1 == sizes.state_count() ? sizes.tokens : index * sizes.block_size;
}

inline Outputs forward(const Sizes& sizes, const Inputs& in) {
    const int64_t D = sizes.head_dim_qk, E = sizes.head_dim_v;
    Outputs out;
    out.output.assign(in.v.size(), 0);
    out.states.assign(at(sizes.batch * sizes.heads_v * sizes.state_count() * D * E), 0);
    for (int64_t b = 0; b < sizes.batch; ++b) {
        for (int64_t h = 0; h < sizes.heads_v; ++h) {
            const Head head(sizes, b, h);
            const double g = std::exp(-in.rate[at(h)]);
            std::vector<double> state(at(D * E));
            for (int64_t i = 0; i < D * E; ++i) state[at(i)] = in.history[at(head.state + i)];
            const auto return_state = [&](int64_t token) {
                for (int64_t i = 0; i < sizes.state_count(); ++i)
                    if (token_of_state(sizes, i) == token)
                        for (int64_t j = 0; j < D * E; ++j) out.states[at(head.states + i * D * E + j)] = state[at(j)];
            };
            for (int64_t t = 0; t < sizes.tokens; ++t) {
                return_state(t);
                for (int64_t d = 0; d < D; ++d) {
                    const double k = in.k[at(head.qk + t * D + d)];
                    const double q = in.scale * in.q[at(head.qk + t * D + d)];
                    for (int64_t e = 0; e < E; ++e) {
                        double& s = state[at(d * E + e)];
                        s = g * s + k * in.v[at(head.v + t * E + e)];
                        out.output[at(head.v + t * E + e)] += q * s;
                    }
                }
            }
            return_state(sizes.tokens);
        }
    }
    return out;
}

inline Gradients backward(const Sizes& sizes, const Inputs& in, const std::vector<double>& grad_output,
                          const std::vector<double>& grad_states) {
    const int64_t D = sizes.head_dim_qk, E = sizes.head_dim_v, N = sizes.tokens;
    Gradients grad;
    grad.q.assign(in.q.size(), 0);
    grad.k.assign(in.k.size(), 0);
    grad.v.assign(in.v.size(), 0);
    grad.history.assign(in.history.size(), 0);
    grad.rate.assign(in.rate.size(), 0);
    grad.rate_magnitude.assign(in.rate.size(), 0);
    grad.rate_spread.assign(in.rate.size(), 0);
    for (int64_t b = 0; b < sizes.batch; ++b) {
        for (int64_t h = 0; h < sizes.heads_v; ++h) {
            const Head head(sizes, b, h);
            const double g = std::exp(-in.rate[at(h)]);
            const auto states = all_states(sizes, in, head, g);
            // dL/dS_t without the part through o_t.
            std::vector<double> adjoint(at(D * E), 0);
            const auto add_returned_states = [&](int64_t token) {
                for (int64_t i = 0; i < sizes.state_count(); ++i)
                    if (token_of_state(sizes, i) == token)
                        for (int64_t j = 0; j < D * E; ++j)
                            adjoint[at(j)] += grad_states[at(head.states + i * D * E + j)];
            };
            add_returned_states(N);
            for (int64_t t = N - 1; t >= 0; --t) {
                double rate_term = 0, squares = 0;
                for (int64_t d = 0; d < D; ++d) {
                    const int64_t qk = head.qk + t * D + d;
                    for (int64_t e = 0; e < E; ++e) {
                        const int64_t v = head.v + t * E + e;
                        const int64_t i = d * E + e;
                        double& a = adjoint[at(i)];
                        grad.q[at(qk)] += in.scale * states[at(t + 1)][at(i)] * grad_output[at(v)];
                        a += in.scale * in.q[at(qk)] * grad_output[at(v)];
                        grad.k[at(qk)] += a * in.v[at(v)];
                        grad.v[at(v)] += a * in.k[at(qk)];
                        const double product = a * g * states[at(t)][at(i)];
                        rate_term -= product;
                        squares += product * product;
                        a *= g;
                    }
                }
                grad.rate[at(h)] += rate_term;
                grad.rate_magnitude[at(h)] += std::abs(rate_term);
                grad.rate_spread[at(h)] += std::sqrt(squares);
                add_returned_states(t);
            }
            for (int64_t j = 0; j < D * E; ++j) grad.history[at(head.state + j)] = adjoint[at(j)];
        }
    }
    return grad;
}

} // namespace reference
} // namespace lattn::test
