// One token of one head. A strip of columns is carried through all rows of the state, so each element of the state is
// read once, written once, and rounded once.
#include "cpu/isa/kernels.h"

namespace lattn::cpu::LATTN_CPU_ISA {
namespace {

// Sums of a strip, which stay in registers, are this many vectors.
constexpr int kStripVectors = 4;
template <typename T>
constexpr int64_t kStrip = kStripVectors* kLanes<T>;

// A strip of columns of any stride, as many as a full strip or fewer.
template <typename Element>
struct StridedStrip {
    using T = Arithmetic<Element>;
    int64_t width;
    int64_t in_stride;
    int64_t out_stride;

    void read(Vec<T> (&strip)[kStripVectors], const Element* in) const {
        T buffer[kStrip<T>] = {};
        for (int64_t i = 0; i < width; ++i) buffer[i] = load_element(in + i * in_stride);
        for (int i = 0; i < kStripVectors; ++i) strip[i] = load(buffer + i * kLanes<T>);
    }
    void write(Element* out, const Vec<T> (&strip)[kStripVectors]) const {
        T buffer[kStrip<T>];
        for (int i = 0; i < kStripVectors; ++i) store(buffer + i * kLanes<T>, strip[i]);
        for (int64_t i = 0; i < width; ++i) store_element(out + i * out_stride, buffer[i]);
    }
};

// A full strip of contiguous columns.
template <typename Element>
struct ContiguousStrip {
    using T = Arithmetic<Element>;

    void read(Vec<T> (&strip)[kStripVectors], const Element* in) const {
        LATTN_UNROLL
        for (int i = 0; i < kStripVectors; ++i) strip[i] = load_elements(in + i * kLanes<T>);
    }
    void write(Element* out, const Vec<T> (&strip)[kStripVectors]) const {
        LATTN_UNROLL
        for (int i = 0; i < kStripVectors; ++i) store_elements(out + i * kLanes<T>, strip[i]);
    }
};

template <typename Element, typename Strip>
LATTN_INLINE void decode_strip(const DecodeHead& head, int64_t begin, const Vec<Arithmetic<Element>>* v,
                               Vec<Arithmetic<Element>>* sum, const Strip& access) {
    using T = Arithmetic<Element>;
    const T* q = static_cast<const T*>(head.q);
    const T* k = static_cast<const T*>(head.k);
    const Vec<T> factor = broadcast(exponential(-*static_cast<const T*>(head.decay_rate)));
    const Element* in = static_cast<const Element*>(head.state_in) + begin * head.in_stride_column;
    Element* out = static_cast<Element*>(head.state_out) + begin * head.out_stride_column;
    for (int64_t d = 0; d < head.rows; ++d, in += head.in_stride_row, out += head.out_stride_row) {
        Vec<T> state[kStripVectors];
        access.read(state, in);
        const Vec<T> k_d = broadcast(k[d]), q_d = broadcast(q[d]);
        LATTN_UNROLL
        for (int i = 0; i < kStripVectors; ++i) {
            state[i] = factor * state[i] + k_d * v[i];
            sum[i] += q_d * state[i];
        }
        access.write(out, state);
    }
}

} // namespace

template <typename Element>
void decode_head(const DecodeHead& head) {
    using T = Arithmetic<Element>;
    const bool contiguous = head.in_stride_column == 1 && head.out_stride_column == 1;
    for (int64_t begin = 0; begin < head.columns; begin += kStrip<T>) {
        const int64_t width = head.columns - begin < kStrip<T> ? head.columns - begin : kStrip<T>;
        T buffer[kStrip<T>] = {};
        memcpy(buffer, static_cast<const T*>(head.v) + begin, static_cast<size_t>(width) * sizeof(T));
        Vec<T> v[kStripVectors], sum[kStripVectors];
        LATTN_UNROLL
        for (int i = 0; i < kStripVectors; ++i) {
            v[i] = load(buffer + i * kLanes<T>);
            sum[i] = Vec<T>{};
        }
        if (contiguous && width == kStrip<T>)
            decode_strip<Element>(head, begin, v, sum, ContiguousStrip<Element>{});
        else
            decode_strip<Element>(head, begin, v, sum,
                                  StridedStrip<Element>{width, head.in_stride_column, head.out_stride_column});
        LATTN_UNROLL
        for (int i = 0; i < kStripVectors; ++i)
            store(buffer + i * kLanes<T>, sum[i] * broadcast(static_cast<T>(head.scale)));
        memcpy(static_cast<T*>(head.output) + begin, buffer, static_cast<size_t>(width) * sizeof(T));
    }
}

template void decode_head<Float16>(const DecodeHead&);
template void decode_head<BFloat16>(const DecodeHead&);
template void decode_head<float>(const DecodeHead&);
template void decode_head<double>(const DecodeHead&);

} // namespace lattn::cpu::LATTN_CPU_ISA
