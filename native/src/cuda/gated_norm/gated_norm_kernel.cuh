// RMSNorm in groups of channels times a gate, y = activation(gate) * (x r) * weight with r = 1 / sqrt(mean x^2 + eps):
// x and gate are read once, y is written once.
//
// Grid: a team of 1 to 512 threads, a power of two that follows from the size of a group alone, has a group of a row to
// itself; a CTA of 512 threads is as many teams as fit, which do not wait for each other. A thread owns pieces of 16
// bytes, one team apart, which stay in registers between the sum and its use; only groups of more than 16 KiB are read
// twice. Loads of gate and weight are under way while x is summed.
//
// Where 16 bytes cannot be loaded at once (strides, addresses, sizes) the elements of the same pieces are loaded one by
// one. So the order of every sum follows from the size of a group: a thread's elements, the threads of a warp by
// shuffles, the warps in shared memory. A row's result is bitwise the same in any batch and at any address.
#pragma once

#include <cstdint>

#include "activation/activate.cuh"
#include "gated_norm/gated_norm_params.h"
#include "ptx/approximate.cuh"
#include "ptx/dependent_launch.cuh"
#include "ptx/named_barrier.cuh"
#include "ptx/streaming.cuh"
#include "tile/packed.cuh"

namespace lattn::cuda {

// A thread's part in the groups that its team works on. kWhole: every piece is 16 aligned bytes.
template <typename T, bool kWhole, int kCtaThreads>
struct GatedNormTeam {
    static constexpr int kWarps = kCtaThreads / 32;
    static constexpr int kWidth = kGatedNormBytes / static_cast<int>(sizeof(T));
    using Piece = Packed<T, kWidth>;

    // Where a piece of a thread is.
    struct Place {
        int in_group; // its first channel, counted in the group
        int channel;  // ... and over all heads
        int head;
        int column; // of the head
        bool is_inside;
    };

    struct RowIndex {
        int64_t batch, token;
    };

    const GatedNormShape& shape;
    int threads;
    int thread;
    int64_t team; // of the grid

    __device__ explicit GatedNormTeam(const GatedNormShape& of)
        : shape(of),
          threads(1 << shape.team_log2),
          thread(static_cast<int>(threadIdx.x) & (threads - 1)),
          team(static_cast<int64_t>(blockIdx.x) * (kCtaThreads >> shape.team_log2) + (threadIdx.x >> shape.team_log2)) {
    }

    // The thread's first piece of a group.
    __device__ __forceinline__ Place first_place(int group) const {
        Place place;
        place.in_group = thread * kWidth;
        place.channel = group * shape.group_channels + place.in_group;
        const unsigned channel = static_cast<unsigned>(place.channel), head_dim = static_cast<unsigned>(shape.head_dim);
        place.head = static_cast<int>(channel / head_dim);
        place.column = static_cast<int>(channel % head_dim);
        place.is_inside = thread < shape.pieces;
        return place;
    }

    // The one after it, without another division. `index`: that of the result.
    __device__ __forceinline__ Place next_place(Place place, int index) const {
        place.in_group += threads * kWidth;
        place.channel += threads * kWidth;
        place.head += shape.step_heads;
        place.column += shape.step_columns;
        if (place.column >= shape.head_dim) {
            place.column -= shape.head_dim;
            ++place.head;
        }
        place.is_inside &= index * threads + thread < shape.pieces;
        return place;
    }

    // A row's entry of the batch and its token. A division takes as long as all else before the first load: there is
    // none where B = 1.
    __device__ __forceinline__ RowIndex row_index(int64_t row) const {
        if (shape.rows == shape.tokens) return {0, row};
        const uint64_t tokens = static_cast<uint64_t>(shape.tokens);
        return {static_cast<int64_t>(static_cast<uint64_t>(row) / tokens),
                static_cast<int64_t>(static_cast<uint64_t>(row) % tokens)};
    }

    // The row, or slice of rows, that the team works on, its groups being those of all rows one after the other.
    __device__ __forceinline__ int64_t owned_row() const {
        if (shape.groups == 1) return team;
        return static_cast<int64_t>(static_cast<uint64_t>(team) / static_cast<unsigned>(shape.groups));
    }

    // The first element of a row, of head 0.
    __device__ __forceinline__ static T* row_of(const GatedNormTensor& tensor, const RowIndex& row) {
        return static_cast<T*>(tensor.data) + row.batch * tensor.stride_b + row.token * tensor.stride_n;
    }

    // Calls visit(i, offset from the row) for the elements of a piece.
    template <typename Visit>
    __device__ __forceinline__ void for_each_element(const Place& place, int64_t stride_h, Visit visit) const {
        int64_t head_offset = place.head * stride_h;
        int column = place.column;
#pragma unroll
        for (int i = 0; i < kWidth; ++i) {
            if (place.in_group + i < shape.group_channels) visit(i, head_offset + column);
            if (++column == shape.head_dim) {
                column = 0;
                head_offset += stride_h;
            }
        }
    }

    // Zeros outside the group.
    __device__ __forceinline__ Piece load(const T* row, int64_t stride_h, const Place& place) const {
        Piece piece{};
        if (!place.is_inside) return piece;
        if constexpr (kWhole) {
            piece = ptx::load_streaming(reinterpret_cast<const Piece*>(row + place.head * stride_h + place.column));
        } else {
#pragma unroll
            for (int i = 0; i < kWidth; ++i) piece.put(i, from_float<T>(0.0f));
            for_each_element(place, stride_h, [&](int i, int64_t offset) { piece.put(i, row[offset]); });
        }
        return piece;
    }

    __device__ __forceinline__ Piece load_weight(const void* weight, const Place& place) const {
        const T* channels = static_cast<const T*>(weight);
        if constexpr (!kWhole) return load(channels, shape.head_dim, place);
        Piece piece{};
        if (place.is_inside) piece = ptx::load_streaming(reinterpret_cast<const Piece*>(channels + place.channel));
        return piece;
    }

    __device__ __forceinline__ void store(T* row, int64_t stride_h, const Place& place,
                                          const float (&values)[kWidth]) const {
        if (!place.is_inside) return;
        if constexpr (kWhole)
            ptx::store_streaming(reinterpret_cast<Piece*>(row + place.head * stride_h + place.column),
                                 Piece::of(values));
        else
            for_each_element(place, stride_h, [&](int i, int64_t offset) { row[offset] = from_float<T>(values[i]); });
    }

    // Sums over the team's threads, for all of them. Every thread of a warp takes part. With teams of several warps
    // `shared` is to be another one than in the call before.
    template <int kCount>
    __device__ __forceinline__ void sum(float (&sums)[kCount], float (&shared)[kCount][kWarps]) const {
#pragma unroll
        for (int distance = 16; distance > 0; distance /= 2) {
            if (distance >= threads) continue;
#pragma unroll
            for (int i = 0; i < kCount; ++i) sums[i] += __shfl_xor_sync(0xffffffffu, sums[i], distance);
        }
        if (threads <= 32) return;
        const int warp = static_cast<int>(threadIdx.x) / 32, first = warp & -(threads / 32);
        if (threadIdx.x % 32 == 0) {
#pragma unroll
            for (int i = 0; i < kCount; ++i) shared[i][warp] = sums[i];
        }
        ptx::barrier_sync(1 + first / 2, threads);
#pragma unroll
        for (int i = 0; i < kCount; ++i) {
            sums[i] = 0.0f;
            for (int other = first; other < first + threads / 32; ++other) sums[i] += shared[i][other];
        }
    }

    // 1 / sqrt(mean x^2 + eps) from the sum of squares.
    __device__ __forceinline__ float inverse_rms(float sum_squares) const {
        return ptx::approximate_rsqrt(fmaf(sum_squares, shape.inverse_channels, shape.eps));
    }
};

template <typename T, bool kWhole>
struct GatedNorm {
    using Team = GatedNormTeam<T, kWhole, kGatedNormThreads>;
    using Piece = typename Team::Piece;
    using Place = typename Team::Place;
    static constexpr int kWidth = Team::kWidth;
    static constexpr int kPieces = gated_norm_pieces(kWhole);

    __device__ __forceinline__ static void add_squares(const Piece& x, float& sum) {
#pragma unroll
        for (int i = 0; i < kWidth; ++i) sum = fmaf(x[i], x[i], sum);
    }

    __device__ __forceinline__ static void store_output(const GatedNormParams& p, const Team& team, T* row,
                                                        const Place& place, float inverse, const Piece& x,
                                                        const Piece& gate, const Piece& weight) {
        float y[kWidth];
        activate(p.shape.activation, gate, y);
#pragma unroll
        for (int i = 0; i < kWidth; ++i) y[i] *= x[i] * inverse * weight[i];
        team.store(row, p.output.stride_h, place, y);
    }

    __device__ static void run(const GatedNormParams& p) {
        __shared__ float shared[1][Team::kWarps];
        const Team team(p.shape);
        const int64_t row = team.owned_row();
        const int group = static_cast<int>(team.team - row * p.shape.groups);
        const bool is_inside = row < p.shape.rows;
        const typename Team::RowIndex index = team.row_index(row);
        const T* x_row = team.row_of(p.x, index);
        const T* gate_row = team.row_of(p.gate, index);
        T* output_row = team.row_of(p.output, index);
        Place places[kPieces];
        places[0] = team.first_place(group);
        places[0].is_inside &= is_inside;
#pragma unroll
        for (int i = 1; i < kPieces; ++i) places[i] = team.next_place(places[i - 1], i);
        ptx::wait_for_prior_kernel();

        Piece x[kPieces], gate[kPieces], weight[kPieces];
#pragma unroll
        for (int i = 0; i < kPieces; ++i) x[i] = team.load(x_row, p.x.stride_h, places[i]);
#pragma unroll
        for (int i = 0; i < kPieces; ++i) gate[i] = team.load(gate_row, p.gate.stride_h, places[i]);
#pragma unroll
        for (int i = 0; i < kPieces; ++i) weight[i] = team.load_weight(p.weight, places[i]);
        ptx::let_next_kernel_start();

        float sums[1] = {0.0f};
#pragma unroll
        for (int i = 0; i < kPieces; ++i) add_squares(x[i], sums[0]);
        Place place = places[kPieces - 1];
#pragma unroll 1
        for (int i = kPieces; (place = team.next_place(place, i)).is_inside; ++i)
            add_squares(team.load(x_row, p.x.stride_h, place), sums[0]);
        team.sum(sums, shared);
        const float inverse = team.inverse_rms(sums[0]);

#pragma unroll
        for (int i = 0; i < kPieces; ++i)
            store_output(p, team, output_row, places[i], inverse, x[i], gate[i], weight[i]);
        place = places[kPieces - 1];
#pragma unroll 1
        for (int i = kPieces; (place = team.next_place(place, i)).is_inside; ++i)
            store_output(p, team, output_row, place, inverse, team.load(x_row, p.x.stride_h, place),
                         team.load(gate_row, p.gate.stride_h, place), team.load_weight(p.weight, place));
    }
};

} // namespace lattn::cuda

#define LATTN_GATED_NORM_KERNEL(name, type, whole)                                                \
    extern "C" __global__ void __launch_bounds__(lattn::cuda::kGatedNormThreads, (whole) ? 2 : 1) \
        name(const __grid_constant__ lattn::cuda::GatedNormParams params) {                       \
        lattn::cuda::GatedNorm<type, whole>::run(params);                                         \
    }
#define LATTN_GATED_NORM_KERNELS(types, type)                     \
    LATTN_GATED_NORM_KERNEL(lattn_gated_norm_##types, type, true) \
    LATTN_GATED_NORM_KERNEL(lattn_gated_norm_any_##types, type, false)
