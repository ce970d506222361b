// The gated norm: a row after the other, on elements widened to the arithmetic type.
#include <algorithm>
#include <cmath>
#include <new>
#include <vector>

#include "common/dtype.h"
#include "common/problem.h"
#include "cpu/activated.h"
#include "cpu/cpu.h"
#include "cpu/kernels.h"
#include "cpu/operands.h"
#include "cpu/parallel.h"
#include "cpu/runner.h"

namespace lattn::cpu {
namespace {

// Slices of rows whose parts of the weight's gradient are summed apart, whatever the number of threads.
constexpr int64_t kSlices = 64;

int64_t rows_of(const lattn_gated_norm& norm) {
    return norm.batch * norm.tokens;
}

int64_t channels_of(const lattn_gated_norm& norm) {
    return norm.heads * norm.head_dim;
}

int threads_for_rows(const lattn_gated_norm& norm, int64_t tasks) {
    return threads_for(tasks,
                       kElementCost * static_cast<double>(rows_of(norm)) * static_cast<double>(channels_of(norm)));
}

// sum a_i b_i in eight interleaved chains, which the compiler makes vectors of.
template <typename T>
double dot(const T* a, const T* b, int64_t count) {
    constexpr int64_t kChains = 8;
    double chains[kChains] = {};
    int64_t i = 0;
    for (; i + kChains <= count; i += kChains)
        for (int64_t chain = 0; chain < kChains; ++chain)
            chains[chain] += static_cast<double>(a[i + chain]) * static_cast<double>(b[i + chain]);
    double sum = 0;
    for (const double chain : chains) sum += chain;
    for (; i < count; ++i) sum += static_cast<double>(a[i]) * static_cast<double>(b[i]);
    return sum;
}

// The rows of one thread, in the arithmetic type.
template <typename T>
class Rows {
public:
    static std::size_t bytes(const lattn_gated_norm& norm, int64_t rows) {
        return static_cast<std::size_t>(rows * channels_of(norm)) * sizeof(T);
    }

    Rows(const lattn_gated_norm& norm, void* scratch) : norm_(norm), scratch_(static_cast<T*>(scratch)) {}

    T* at(int64_t index) const { return scratch_ + index * channels_of(norm_); }

    T* load(int64_t index, const lattn_view& view, int64_t row) const {
        T* to = at(index);
        for (int64_t head = 0; head < norm_.heads; ++head)
            kernels_for(norm_.dtype).load(to + head * norm_.head_dim, row_of(view, row, head), norm_.head_dim);
        return to;
    }

    T* load_weight(int64_t index, const void* weight) const {
        kernels_for(norm_.dtype).load(at(index), weight, channels_of(norm_));
        return at(index);
    }

    void store(const lattn_view& view, int64_t row, const T* values) const {
        for (int64_t head = 0; head < norm_.heads; ++head)
            kernels_for(norm_.dtype).store(row_of(view, row, head), values + head * norm_.head_dim, norm_.head_dim);
    }

    double group_channels() const { return static_cast<double>(channels_of(norm_) / norm_.groups); }

    // Calls visit(first channel, channels, 1 / sqrt(mean x^2 + eps)) for every group.
    template <typename Visit>
    void for_each_group(const T* x, Visit visit) const {
        const int64_t count = channels_of(norm_) / norm_.groups;
        for (int64_t first = 0; first < channels_of(norm_); first += count) {
            const double mean_square = dot(x + first, x + first, count) / group_channels();
            visit(first, count, static_cast<T>(1 / std::sqrt(mean_square + norm_.eps)));
        }
    }

private:
    void* row_of(const lattn_view& view, int64_t row, int64_t head) const {
        const int64_t token = row % norm_.tokens;
        return row_data(view, row / norm_.tokens, head, token * view.stride_n, norm_.dtype);
    }

    const lattn_gated_norm& norm_;
    T* scratch_;
};

template <typename T>
void forward_row(const lattn_gated_norm_forward_params& params, int64_t row, void* scratch) {
    const Rows<T> rows(params.norm, scratch);
    const T* x = rows.load(0, params.x, row);
    T* y = rows.load(1, params.gate, row);
    const T* weight = rows.load_weight(2, params.weight);
    rows.for_each_group(x, [&](int64_t first, int64_t count, T inverse) {
        for (int64_t c = first; c < first + count; ++c)
            y[c] = Activated<T>::of(params.norm.activation, y[c]).value * (x[c] * inverse * weight[c]);
    });
    rows.store(params.output, row, y);
}

constexpr int64_t kForwardRows = 3;

// With a = activation(gate), n = x r and u = grad_output a weight: grad_x = r (u - n mean(u n)), grad_gate =
// grad_output n weight a', and grad_weight is the sum over rows of grad_output a n.
template <typename T>
void backward_row(const lattn_gated_norm_backward_params& params, int64_t row, void* scratch, double* grad_weight) {
    const Rows<T> rows(params.norm, scratch);
    const T* x = rows.load(0, params.x, row);
    T* gate = rows.load(1, params.gate, row);
    T* grad = rows.load(2, params.grad_output, row);
    const T* weight = rows.load_weight(3, params.weight);
    T* u = rows.at(4);
    rows.for_each_group(x, [&](int64_t first, int64_t count, T inverse) {
        for (int64_t c = first; c < first + count; ++c) {
            const Activated<T> activated = Activated<T>::of(params.norm.activation, gate[c]);
            const T grad_activated = grad[c] * (x[c] * inverse);
            u[c] = grad[c] * activated.value * weight[c];
            gate[c] = grad_activated * weight[c] * activated.derivative;
            if (grad_weight != nullptr) grad_weight[c] += static_cast<double>(grad_activated * activated.value);
        }
        const T mean =
            static_cast<T>(dot(u + first, x + first, count) * static_cast<double>(inverse) / rows.group_channels());
        for (int64_t c = first; c < first + count; ++c) grad[c] = inverse * (u[c] - x[c] * inverse * mean);
    });
    if (params.grad_x.data != nullptr) rows.store(params.grad_x, row, grad);
    if (params.grad_gate.data != nullptr) rows.store(params.grad_gate, row, gate);
}

constexpr int64_t kBackwardRows = 5;

template <typename T>
Status forward(const lattn_gated_norm_forward_params& params) {
    const int threads = threads_for_rows(params.norm, rows_of(params.norm));
    const Scratch scratch(Rows<T>::bytes(params.norm, kForwardRows), threads);
    if (!scratch) return out_of_memory();
    parallel_for(rows_of(params.norm), threads,
                 [&](int64_t row, int thread) { forward_row<T>(params, row, scratch.of(thread)); });
    return ok();
}

template <typename T>
Status backward(const lattn_gated_norm_backward_params& params) {
    const int64_t rows = rows_of(params.norm), channels = channels_of(params.norm);
    const int64_t slice_rows = std::max<int64_t>(ceil_div(rows, kSlices), 1), slices = ceil_div(rows, slice_rows);
    const bool sums = params.grad_weight != nullptr;
    std::vector<double> partial(sums ? static_cast<std::size_t>(slices * channels) : 0);
    const int threads = threads_for_rows(params.norm, slices);
    const Scratch scratch(Rows<T>::bytes(params.norm, kBackwardRows), threads);
    if (!scratch) return out_of_memory();
    parallel_for(slices, threads, [&](int64_t slice, int thread) {
        double* grad_weight = sums ? partial.data() + slice * channels : nullptr;
        for (int64_t row = slice * slice_rows; row < std::min(rows, (slice + 1) * slice_rows); ++row)
            backward_row<T>(params, row, scratch.of(thread), grad_weight);
    });
    if (!sums) return ok();
    std::vector<T> total(static_cast<std::size_t>(channels));
    for (int64_t c = 0; c < channels; ++c) {
        double sum = 0;
        for (int64_t slice = 0; slice < slices; ++slice) sum += partial[static_cast<std::size_t>(slice * channels + c)];
        total[static_cast<std::size_t>(c)] = static_cast<T>(sum);
    }
    kernels_for(params.norm.dtype).store(params.grad_weight, total.data(), channels);
    return ok();
}

} // namespace

Status gated_norm_forward(const lattn_gated_norm_forward_params& params) {
    return params.norm.dtype == LATTN_FLOAT64 ? forward<double>(params) : forward<float>(params);
}

Status gated_norm_backward(const lattn_gated_norm_backward_params& params) try {
    return params.norm.dtype == LATTN_FLOAT64 ? backward<double>(params) : backward<float>(params);
} catch (const std::bad_alloc&) {
    return out_of_memory();
}

} // namespace lattn::cpu
