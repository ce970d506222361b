// States in the caller's memory, of any strides.
#pragma once

#include "cpu/isa/tile.h"
#include "cpu/scan.h"

namespace lattn::cpu::LATTN_CPU_ISA {

template <typename T>
T* state_data(const States& states, int64_t member, int64_t block) {
    return static_cast<T*>(states.data) + member * states.stride_member + block * states.stride_block;
}

template <typename T, typename F>
LATTN_INLINE void for_state_rows(const States& states, int64_t member, int64_t block, Matrix<T> state, const Scan& scan,
                                 F row) {
    T* base = state_data<T>(states, member, block);
    for (int64_t k = 0; k < scan.rows; ++k)
        row(base + k * states.stride_row, states.stride_column, state.row(k), scan.columns);
}

template <typename T>
void clear_state(Matrix<T> state, const Scan& scan) {
    const int64_t padded = (scan.columns + kLanes<T> - 1) / kLanes<T> * kLanes<T>;
    for (int64_t k = 0; k < scan.rows; ++k)
        for (int64_t j = 0; j < padded; ++j) state.row(k)[j] = 0;
}

template <typename T>
void read_state(Matrix<T> state, const States& states, int64_t member, int64_t block, const Scan& scan) {
    for_state_rows<T>(states, member, block, state, scan, [](const T* theirs, int64_t stride, T* ours, int64_t n) {
        for (int64_t j = 0; j < n; ++j) ours[j] = theirs[j * stride];
    });
}

template <typename T>
void add_to_state(Matrix<T> state, const States& states, int64_t member, int64_t block, const Scan& scan) {
    for_state_rows<T>(states, member, block, state, scan, [](const T* theirs, int64_t stride, T* ours, int64_t n) {
        for (int64_t j = 0; j < n; ++j) ours[j] += theirs[j * stride];
    });
}

template <typename T>
void write_state(Matrix<T> state, const States& states, int64_t member, int64_t block, const Scan& scan) {
    for_state_rows<T>(states, member, block, state, scan, [](T* theirs, int64_t stride, const T* ours, int64_t n) {
        if (stride == 1)
            memcpy(theirs, ours, static_cast<size_t>(n) * sizeof(T));
        else
            for (int64_t j = 0; j < n; ++j) theirs[j * stride] = ours[j];
    });
}

template <typename T>
double inner_product(Matrix<T> state, const States& states, int64_t member, int64_t block, const Scan& scan) {
    double sum = 0;
    for_state_rows<T>(states, member, block, state, scan,
                      [&](const T* theirs, int64_t stride, const T* ours, int64_t n) {
                          for (int64_t j = 0; j < n; ++j)
                              sum += static_cast<double>(theirs[j * stride]) * static_cast<double>(ours[j]);
                      });
    return sum;
}

} // namespace lattn::cpu::LATTN_CPU_ISA
