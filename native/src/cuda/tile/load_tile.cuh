// A [kRows x kColumns] tile of a strided matrix into shared memory, zero beyond its valid part.
#pragma once

#include <cstdint>

#include "ptx/cp_async.cuh"
#include "ptx/opaque.cuh"

namespace lattn::cuda {

// Padding of a row, in elements: rows then start in different banks for ldmatrix (16-bit) and for pair loads (fp32).
constexpr int kRowPad = 8;

// Row r of the tile is source[r * row_stride .. ], valid for r < rows and column < columns (columns a multiple of 8).
// With `aligned` every row starts at a multiple of 16 bytes and is copied asynchronously; the caller commits and waits.
template <typename T, int kRows, int kColumns, int kThreads>
__device__ __forceinline__ void load_tile(T* tile, const T* source, int64_t row_stride, int rows, int columns,
                                          bool aligned) {
    constexpr int kVector = 16 / sizeof(T);
    constexpr int kVectorsPerRow = kColumns / kVector;
    constexpr int kLd = kColumns + kRowPad;
    row_stride = ptx::opaque(row_stride);
#pragma unroll 4
    for (int index = ptx::opaque(static_cast<int>(threadIdx.x)); index < kRows * kVectorsPerRow; index += kThreads) {
        const int row = index / kVectorsPerRow;
        const int column = (index % kVectorsPerRow) * kVector;
        const bool valid = row < rows && column < columns;
        const T* from = valid ? source + row * row_stride + column : source;
        T* to = tile + row * kLd + column;
        if (aligned) {
            ptx::cp_async_16(ptx::shared_address(to), from, valid ? 16 : 0);
        } else {
#pragma unroll
            for (int i = 0; i < kVector; ++i) to[i] = valid ? from[i] : T(0.0f);
        }
    }
}

} // namespace lattn::cuda
