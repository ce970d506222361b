// States in the caller's memory, of any strides.
#pragma once

#include "cpu/isa/convert.h"
#include "cpu/isa/tile.h"
#include "cpu/scan.h"

namespace lattn::cpu::LATTN_CPU_ISA {

template <typename T>
T* state_data(const States& states, int64_t member, int64_t block) {
    return static_cast<T*>(states.data) + member * states.stride_member + block * states.stride_block;
}

// Calls row(theirs, stride, ours, columns) for the rows of a state in memory, whose elements are of type Element.
template <typename Element, typename T, typename F>
LATTN_INLINE void for_state_rows_of(const States& states, int64_t member, int64_t block, Matrix<T> state,
                                    const Scan& scan, F row) {
    Element* base = state_data<Element>(states, member, block);
    for (int64_t k = 0; k < scan.rows; ++k)
        row(base + k * states.stride_row, states.stride_column, state.row(k), scan.columns);
}

template <typename T, typename F>
LATTN_INLINE void for_state_rows(const States& states, int64_t member, int64_t block, Matrix<T> state, const Scan& scan,
                                 F row) {
    for_state_rows_of<T>(states, member, block, state, scan, row);
}

// The same for states that may have 16 bits: `row` takes elements of each type.
template <typename T, typename F>
LATTN_INLINE void for_any_state_rows(const States& states, int64_t member, int64_t block, Matrix<T> state,
                                     const Scan& scan, F row) {
    if constexpr (sizeof(T) == sizeof(float)) {
        if (states.dtype == LATTN_BFLOAT16) return for_state_rows_of<BFloat16>(states, member, block, state, scan, row);
        if (states.dtype == LATTN_FLOAT16) return for_state_rows_of<Float16>(states, member, block, state, scan, row);
    }
    for_state_rows_of<T>(states, member, block, state, scan, row);
}

template <typename T>
void clear_state(Matrix<T> state, const Scan& scan) {
    const int64_t padded = (scan.columns + kLanes<T> - 1) / kLanes<T> * kLanes<T>;
    for (int64_t k = 0; k < scan.rows; ++k)
        for (int64_t j = 0; j < padded; ++j) state.row(k)[j] = 0;
}

template <typename T>
void read_state(Matrix<T> state, const States& states, int64_t member, int64_t block, const Scan& scan) {
    for_any_state_rows<T>(states, member, block, state, scan,
                          [](const auto* theirs, int64_t stride, T* ours, int64_t n) {
                              for (int64_t j = 0; j < n; ++j) ours[j] = load_element(theirs + j * stride);
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
    for_any_state_rows<T>(states, member, block, state, scan,
                          [](auto* theirs, int64_t stride, const T* ours, int64_t n) {
                              if (stride == 1)
                                  narrow_row(theirs, ours, n);
                              else
                                  for (int64_t j = 0; j < n; ++j) store_element(theirs + j * stride, ours[j]);
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
