// output = activation(input) or grad * activation'(input), element by element.
//
// Grid: CTAs of 256 threads, each thread with two pieces of 16 bytes, a CTA's pieces side by side. The elements of a
// piece that is not 16 aligned bytes are read and written one by one.
#pragma once

#include "activation/activate.cuh"
#include "activation/activation_params.h"
#include "ptx/dependent_launch.cuh"

namespace lattn::cuda {

template <typename T>
struct ActivationPass {
    static constexpr int kWidth = kActivationBytes / static_cast<int>(sizeof(T));
    static constexpr int64_t kStep = int64_t{kActivationThreads} * kWidth; // from a thread's piece to its next one
    using Piece = Packed<T, kWidth>;

    __device__ __forceinline__ static bool is_whole(const ActivationParams& p, int64_t first) {
        return p.aligned && first + kWidth <= p.count;
    }

    __device__ __forceinline__ static Piece load(const ActivationParams& p, const void* tensor, int64_t first) {
        const T* from = static_cast<const T*>(tensor) + first;
        if (is_whole(p, first)) return *reinterpret_cast<const Piece*>(from);
        Piece piece = {};
#pragma unroll
        for (int i = 0; i < kWidth; ++i)
            if (first + i < p.count) piece.put(i, from[i]);
        return piece;
    }

    __device__ __forceinline__ static void store(const ActivationParams& p, int64_t first, const Piece& piece) {
        T* to = static_cast<T*>(p.output) + first;
        if (is_whole(p, first)) {
            *reinterpret_cast<Piece*>(to) = piece;
            return;
        }
#pragma unroll
        for (int i = 0; i < kWidth; ++i)
            if (first + i < p.count) to[i] = piece.at(i);
    }

    __device__ __forceinline__ static void store_gradients(const ActivationParams& p, int64_t first,
                                                           const Piece (&input)[kActivationPieces]) {
        Piece grad[kActivationPieces];
#pragma unroll
        for (int i = 0; i < kActivationPieces; ++i) grad[i] = load(p, p.grad, first + i * kStep);
#pragma unroll
        for (int i = 0; i < kActivationPieces; ++i) {
            float value[kWidth], derivative[kWidth];
            activate(p.activation, input[i], value, derivative);
#pragma unroll
            for (int j = 0; j < kWidth; ++j) value[j] = grad[i][j] * derivative[j];
            store(p, first + i * kStep, Piece::of(value));
        }
    }

    __device__ static void run(const ActivationParams& p) {
        const int64_t first = blockIdx.x * (kActivationPieces * kStep) + static_cast<int64_t>(threadIdx.x) * kWidth;
        ptx::wait_for_prior_kernel();
        Piece piece[kActivationPieces];
#pragma unroll
        for (int i = 0; i < kActivationPieces; ++i) piece[i] = load(p, p.input, first + i * kStep);
        if (p.grad != nullptr) {
            store_gradients(p, first, piece);
            return;
        }
#pragma unroll
        for (int i = 0; i < kActivationPieces; ++i) {
            float value[kWidth];
            activate(p.activation, piece[i], value);
            store(p, first + i * kStep, Piece::of(value));
        }
    }
};

} // namespace lattn::cuda

#define LATTN_ACTIVATION_KERNEL(suffix, type)                                                   \
    extern "C" __global__ void __launch_bounds__(lattn::cuda::kActivationThreads)               \
        lattn_activate_##suffix(const __grid_constant__ lattn::cuda::ActivationParams params) { \
        lattn::cuda::ActivationPass<type>::run(params);                                         \
    }
