// Gradients of the gated norm. With a = activation(gate), n = x r, u = grad_output * a * weight and L channels in a
// group,
//
//     grad_x      = r (u - n sum(u n) / L)
//     grad_gate   = grad_output * n * weight * activation'(gate)
//     grad_weight = sum over rows of grad_output * a * n
//
// Grid: teams as in gated_norm_kernel.cuh, each with a group of a slice of rows, one row after the other. Both sums of
// a row are made in one pass; pieces beyond those in registers are read again. A thread's part of the weight's gradient
// stays in registers, or for pieces beyond them in its place of `partial`, until the slice is done. A second kernel
// sums the slices, whose number follows from the number of rows: 16 at a time by the warps of a CTA, then these.
#pragma once

#include "gated_norm/gated_norm_kernel.cuh"

namespace lattn::cuda {

template <typename T, bool kWhole>
struct GatedNormBackward {
    using Team = GatedNormTeam<T, kWhole, kGatedNormBackwardThreads>;
    using Piece = typename Team::Piece;
    using Place = typename Team::Place;
    static constexpr int kWidth = Team::kWidth;
    static constexpr int kPieces = gated_norm_pieces(kWhole);

    // A thread's piece of the inputs.
    struct Inputs {
        Piece x, gate, grad_output;
    };

    struct Row {
        const T* x;
        const T* gate;
        const T* grad_output;
        T* grad_x;
        T* grad_gate;

        __device__ __forceinline__ Row(const GatedNormBackwardParams& p, const typename Team::RowIndex& row)
            : x(Team::row_of(p.x, row)),
              gate(Team::row_of(p.gate, row)),
              grad_output(Team::row_of(p.grad_output, row)),
              grad_x(Team::row_of(p.grad_x, row)),
              grad_gate(Team::row_of(p.grad_gate, row)) {}
    };

    __device__ __forceinline__ static Inputs load(const GatedNormBackwardParams& p, const Team& team, const Row& row,
                                                  const Place& place) {
        return {team.load(row.x, p.x.stride_h, place), team.load(row.gate, p.gate.stride_h, place),
                team.load(row.grad_output, p.grad_output.stride_h, place)};
    }

    // sums: of x^2 and of u x.
    __device__ __forceinline__ static void add_sums(const GatedNormBackwardParams& p, const Inputs& in,
                                                    const Piece& weight, float (&sums)[2]) {
        float activated[kWidth];
        activate(p.shape.activation, in.gate, activated);
#pragma unroll
        for (int i = 0; i < kWidth; ++i) {
            const float u = in.grad_output[i] * activated[i] * weight[i];
            sums[0] = fmaf(in.x[i], in.x[i], sums[0]);
            sums[1] = fmaf(u, in.x[i], sums[1]);
        }
    }

    // Adds the row to `grad_weight`. mean: of u n. Fused as written, so in every instance alike.
    __device__ __forceinline__ static void store_grads(const GatedNormBackwardParams& p, const Team& team,
                                                       const Row& row, const Place& place, float inverse, float mean,
                                                       const Inputs& in, const Piece& weight,
                                                       float (&grad_weight)[kWidth]) {
        float grad_x[kWidth], grad_gate[kWidth], activated[kWidth], derivative[kWidth];
        activate(p.shape.activation, in.gate, activated, derivative);
#pragma unroll
        for (int i = 0; i < kWidth; ++i) {
            const float normed = in.x[i] * inverse;
            const float grad_activated = in.grad_output[i] * normed;
            grad_weight[i] = fmaf(grad_activated, activated[i], grad_weight[i]);
            grad_gate[i] = grad_activated * weight[i] * derivative[i];
            grad_x[i] = inverse * fmaf(-normed, mean, in.grad_output[i] * activated[i] * weight[i]);
        }
        if (p.grad_x.data != nullptr) team.store(row.grad_x, p.grad_x.stride_h, place, grad_x);
        if (p.grad_gate.data != nullptr) team.store(row.grad_gate, p.grad_gate.stride_h, place, grad_gate);
    }

    // Calls visit(i, sum) for the places of a piece's channels in `partial`.
    template <typename Visit>
    __device__ __forceinline__ static void for_each_sum(const GatedNormBackwardParams& p, float* partial,
                                                        const Place& place, Visit visit) {
        if (p.partial == nullptr || !place.is_inside) return;
#pragma unroll
        for (int i = 0; i < kWidth; ++i)
            if (place.in_group + i < p.shape.group_channels) visit(i, partial[place.channel + i]);
    }

    __device__ static void run(const GatedNormBackwardParams& p) {
        // Two, so that one barrier a row is enough.
        __shared__ float shared[2][2][Team::kWarps];
        const GatedNormShape& shape = p.shape;
        const Team team(shape);
        const int64_t slice = team.owned_row();
        const int group = static_cast<int>(team.team - slice * shape.groups);
        const int64_t first_row = slice * p.slice_rows;
        float* partial = p.partial + slice * shape.groups * shape.group_channels;
        Place places[kPieces];
        places[0] = team.first_place(group);
#pragma unroll
        for (int i = 1; i < kPieces; ++i) places[i] = team.next_place(places[i - 1], i);
        ptx::wait_for_prior_kernel();

        Piece weight[kPieces];
        float grad_weight[kPieces][kWidth] = {};
#pragma unroll
        for (int i = 0; i < kPieces; ++i) weight[i] = team.load_weight(p.weight, places[i]);
            // Teams with fewer rows stay for the shuffles of their warp.
#pragma unroll 1
        for (int row_of_slice = 0; row_of_slice < p.slice_rows; ++row_of_slice) {
            const bool is_inside = first_row + row_of_slice < shape.rows;
            const Row row(p, team.row_index(first_row + row_of_slice));
            Inputs in[kPieces];
#pragma unroll
            for (int i = 0; i < kPieces; ++i) {
                Place place = places[i];
                place.is_inside &= is_inside;
                in[i] = load(p, team, row, place);
            }
            float sums[2] = {0.0f, 0.0f};
#pragma unroll
            for (int i = 0; i < kPieces; ++i) add_sums(p, in[i], weight[i], sums);
            Place place = places[kPieces - 1];
#pragma unroll 1
            for (int i = kPieces; is_inside && (place = team.next_place(place, i)).is_inside; ++i)
                add_sums(p, load(p, team, row, place), team.load_weight(p.weight, place), sums);
            team.sum(sums, shared[row_of_slice % 2]);
            const float inverse = team.inverse_rms(sums[0]);
            const float mean = sums[1] * inverse * shape.inverse_channels;
            if (!is_inside) continue;
#pragma unroll
            for (int i = 0; i < kPieces; ++i)
                store_grads(p, team, row, places[i], inverse, mean, in[i], weight[i], grad_weight[i]);
            place = places[kPieces - 1];
#pragma unroll 1
            for (int i = kPieces; (place = team.next_place(place, i)).is_inside; ++i) {
                float sums_of_piece[kWidth] = {};
                if (row_of_slice > 0)
                    for_each_sum(p, partial, place, [&](int j, float& sum) { sums_of_piece[j] = sum; });
                store_grads(p, team, row, place, inverse, mean, load(p, team, row, place),
                            team.load_weight(p.weight, place), sums_of_piece);
                for_each_sum(p, partial, place, [&](int j, float& sum) { sum = sums_of_piece[j]; });
            }
        }
        ptx::let_next_kernel_start();
        if (slice >= p.slices) return;
#pragma unroll
        for (int i = 0; i < kPieces; ++i)
            for_each_sum(p, partial, places[i], [&](int j, float& sum) { sum = grad_weight[i][j]; });
    }
};

// By a CTA for 32 channels.
template <typename T>
struct GatedNormSum {
    static constexpr int kRows = kGatedNormSumThreads / kGatedNormSumColumns;

    __device__ static void run(const GatedNormSumParams& p) {
        __shared__ float sums[kRows][kGatedNormSumColumns];
        const int lane = static_cast<int>(threadIdx.x) % kGatedNormSumColumns;
        const int own = static_cast<int>(threadIdx.x) / kGatedNormSumColumns;
        const int64_t channel = static_cast<int64_t>(blockIdx.x) * kGatedNormSumColumns + lane;
        ptx::wait_for_prior_kernel();
        float sum = 0.0f;
        if (channel < p.channels) {
#pragma unroll 8
            for (int64_t slice = own; slice < p.slices; slice += kRows) sum += p.partial[slice * p.channels + channel];
        }
        ptx::let_next_kernel_start();
        sums[own][lane] = sum;
        __syncthreads();
        if (own != 0 || channel >= p.channels) return;
        float total = 0.0f;
#pragma unroll
        for (int row = 0; row < kRows; ++row) total += sums[row][lane];
        static_cast<T*>(p.grad_weight)[channel] = from_float<T>(total);
    }
};

} // namespace lattn::cuda

#define LATTN_GATED_NORM_BACKWARD_KERNEL(name, type, whole)                                               \
    extern "C" __global__ void __launch_bounds__(lattn::cuda::kGatedNormBackwardThreads, (whole) ? 2 : 1) \
        name(const __grid_constant__ lattn::cuda::GatedNormBackwardParams params) {                       \
        lattn::cuda::GatedNormBackward<type, whole>::run(params);                                         \
    }
#define LATTN_GATED_NORM_BACKWARD_KERNELS(types, type)                                                 \
    LATTN_GATED_NORM_BACKWARD_KERNEL(lattn_gated_norm_backward_##types, type, true)                    \
    LATTN_GATED_NORM_BACKWARD_KERNEL(lattn_gated_norm_backward_any_##types, type, false)               \
    extern "C" __global__ void __launch_bounds__(lattn::cuda::kGatedNormSumThreads)                    \
        lattn_gated_norm_sum_##types(const __grid_constant__ lattn::cuda::GatedNormSumParams params) { \
        lattn::cuda::GatedNormSum<type>::run(params);                                                  \
    }
