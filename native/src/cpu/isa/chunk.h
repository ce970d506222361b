// A chunk of tokens packed into the scratch of scan.h, and what is carried from chunk to chunk.
#pragma once

#include "cpu/isa/convert.h"
#include "cpu/isa/tile.h"
#include "cpu/scan.h"

namespace lattn::cpu::LATTN_CPU_ISA {

// What is carried for one member.
template <typename T>
struct Member {
    Matrix<T> state;
    Matrix<T> tangent;
    T* decay;         // g^n
    T* score_weights; // of the distance n at kChunk-1-n
};

template <typename T>
struct Chunk {
    int64_t tokens;
    bool state_is_zero;
    bool accumulate; // add to the output of the group's earlier members
    Matrix<T> x, y, y_transposed, z, z_weighted, scores, output, partner, z_transposed, partner_scores;
};

template <typename T>
Chunk<T> chunk_of(const ScanLayout& layout, T* scratch) {
    Chunk<T> chunk = {};
    chunk.x = {scratch + layout.x, layout.ld_rows};
    chunk.y = {scratch + layout.y, layout.ld_rows};
    chunk.y_transposed = {scratch + layout.y_transposed, layout.ld_chunk};
    chunk.z = {scratch + layout.z, layout.ld_columns};
    chunk.z_weighted = {scratch + layout.z_weighted, layout.ld_columns};
    chunk.scores = {scratch + layout.scores, layout.ld_chunk};
    chunk.output = {scratch + layout.output, layout.ld_columns};
    chunk.partner = {scratch + layout.partner, layout.ld_columns};
    chunk.z_transposed = {scratch + layout.z_transposed, layout.ld_chunk};
    chunk.partner_scores = {scratch + layout.partner_scores, layout.ld_chunk};
    return chunk;
}

template <typename T>
Member<T> member_of(const ScanLayout& layout, T* scratch, int64_t index) {
    T* base = scratch + layout.members + index * layout.member_elements;
    return {{base + layout.state, layout.ld_columns},
            {base + layout.state_tangent, layout.ld_columns},
            base + layout.decay,
            base + layout.score_weights};
}

// The tokens of a chunk in the order that the scan takes them: first, first + step, ...
struct Window {
    int64_t first;
    int64_t step;
    int64_t tokens;
    int64_t following; // tokens that the scan has yet to take
};

template <typename Element, typename T>
void pack(Matrix<T> destination, const Rows& rows, int64_t member, const Window& window, int64_t columns) {
    const int64_t padded = (columns + kLanes<T> - 1) / kLanes<T> * kLanes<T>;
    const int64_t stride = window.step * rows.stride_token;
    const Element* source = static_cast<const Element*>(rows.data);
    if (source != nullptr) source += member * rows.stride_member + window.first * rows.stride_token;
    for (int64_t i = 0; i < window.tokens; ++i) {
        T* row = destination.row(i);
        if (source != nullptr) {
            // The next chunk's row arrives while this chunk is computed.
            if (i < window.following)
                prefetch(source + (window.tokens + i) * stride, columns * static_cast<int64_t>(sizeof(Element)));
            widen_row(row, source + i * stride, columns);
        }
        for (int64_t j = source != nullptr ? columns : 0; j < padded; ++j) row[j] = 0;
    }
}

// Columns of `destination` from `tokens` up to the next multiple of a vector are zero.
template <typename T>
void transpose(Matrix<T> destination, Matrix<T> source, int64_t tokens, int64_t columns) {
    int64_t i = 0;
    for (; i + kLanes<T> <= tokens; i += kLanes<T>)
        for (int64_t j = 0; j < columns; j += kLanes<T>)
            transpose_block(destination.row(j) + i, destination.ld, source.row(i) + j, source.ld);
    if (i == tokens) return;
    for (int64_t j = 0; j < columns; ++j)
        for (int64_t lane = 0; lane < kLanes<T>; ++lane)
            destination.row(j)[i + lane] = i + lane < tokens ? source.row(i + lane)[j] : T(0);
}

// destination_j = weights[j] z_j
template <typename T>
void weigh_rows(Matrix<T> destination, Matrix<T> source, const T* weights, int64_t tokens, int64_t columns) {
    for (int64_t i = 0; i < tokens; ++i) {
        const Vec<T> weight = broadcast(weights[i]);
        for (int64_t j = 0; j < columns; j += kLanes<T>)
            store(destination.row(i) + j, load(source.row(i) + j) * weight);
    }
}

} // namespace lattn::cpu::LATTN_CPU_ISA
