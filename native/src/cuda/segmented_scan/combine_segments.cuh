// The pass of the segmented scan between sums and output.
#pragma once

#include "ptx/dependent_launch.cuh"
#include "segmented_scan/layout.cuh"

namespace lattn::cuda {

// S before every job but the first from the sums U of the segments before it, in place: S <- g^L S + U. One thread per
// value of a state; kStateFloats / kCombineThreads blocks for each (batch, head, value slice).
template <int kRowDim>
struct CombineSegments {
    using Config = SegmentedScanConfig<kRowDim>;
    using Sums = SegmentSums<Config>;
    static constexpr int kBlocks = Config::kStateFloats / Config::kCombineThreads;

    // Those that a head needs. Where it forgets, S is U, and there are sums of the segments before jobs alone.
    __device__ static int needed_segments(const CallScan& call, const SequenceScan& p, const Sums& sums) {
        if (!sums.forgets()) return p.summed_segments;
        return sums.decay_over_segment(0) > 0.0f && starts_job(call, p, 1) ? 1 : 0;
    }

    __device__ static float initial_of(const CallScan& call, const SequenceScan& p, int64_t element) {
        switch (call.state_type) {
            case kPoolBfloat16:
                return to_float(reinterpret_cast<const __nv_bfloat16*>(p.initial.data)[element]);
            case kPoolFloat16:
                return to_float(reinterpret_cast<const __half*>(p.initial.data)[element]);
            default:
                return p.initial.data[element];
        }
    }

    // wait(): until the sums are there.
    template <typename Wait>
    __device__ static void run_block(const CallScan& call, const SequenceScan& p, int block, Wait wait) {
        const int sequence = block / kBlocks;
        const int index = block % kBlocks * Config::kCombineThreads + threadIdx.x;
        const int head = sequence / call.value_slices % call.heads;

        // The element of the state that value i of a thread is.
        const int thread = index % kGroupThreads;
        const int i = index / kGroupThreads;
        const int lane = thread % 32;
        const int row = i / 4 * 8 + lane % 4 * 2 + i % 2;
        const int column =
            sequence % call.value_slices * Config::kValueCols + thread / 32 * 16 + lane / 4 + i / 2 % 2 * 8;

        const Sums sums(p, call.decay_rate[head]);
        const int segments = needed_segments(call, p, sums);
        if (segments == 0) {
            // One block waits, or this kernel might be over before the sums are there.
            if (index == static_cast<int>(threadIdx.x)) wait();
            return;
        }
        float decay = sums.decay_over_segment(0);
        float before = 0.0f;
        if (p.initial.data != nullptr && row < call.row_dim && column < call.value_dim)
            before =
                initial_of(call, p,
                           sequence / call.value_slices / call.heads * p.initial.stride_b + head * p.initial.stride_h +
                               row * p.initial.stride_row + column * p.initial.stride_column) *
                call.inverse_state_scale;
        wait();
        const int first_entry = Config::kBeforeInRegisters ? 0 : 1; // that of the second segment
        float* state = p.workspace + (int64_t{sequence} * p.state_entries + first_entry) * Config::kStateFloats + index;
        constexpr int kBatch = 16; // loads under way at once
#pragma unroll 1
        for (int segment = 1; segment <= segments; segment += kBatch, state += kBatch * Config::kStateFloats) {
            float sum[kBatch] = {};
#pragma unroll
            for (int next = 0; next < kBatch; ++next)
                if (segment + next <= segments) sum[next] = state[next * Config::kStateFloats];
#pragma unroll
            for (int next = 0; next < kBatch; ++next) {
                if (segment + next > segments) break;
                before = fmaf(decay, before, sum[next]);
                if (segment + next == 1) decay = sums.decay_over_segment(1);
                if (starts_job(call, p, segment + next)) state[next * Config::kStateFloats] = before;
            }
        }
    }

    __device__ static void run(const SegmentedScanParams& params) {
        ptx::let_next_kernel_start();
        run_block(params, params, static_cast<int>(blockIdx.x), [] { ptx::wait_for_prior_kernel(); });
    }

    // A part is all of a sequence.
    __device__ static void run(const PackedScanParams& params) {
        ptx::wait_for_prior_kernel();
        ptx::let_next_kernel_start();
        const unsigned blocks = *params.part_count * params.jobs_per_part;
#pragma unroll 1
        for (unsigned block = blockIdx.x; block < blocks; block += gridDim.x) {
            const PackedPart part = params.parts[block / params.jobs_per_part];
            run_block(params.call, params.sequences[part.sequence], static_cast<int>(block % params.jobs_per_part),
                      [] {});
        }
    }
};

} // namespace lattn::cuda
