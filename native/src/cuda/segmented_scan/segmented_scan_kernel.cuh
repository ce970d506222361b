// The segmented scan on wgmma (sm_90a); segmented_scan_params.h has the formulas, docs/kernels/forward.md the reasons.
//
// Grid: as many CTAs as fit at once, or fewer; each works on one job after the other. A job is a (batch, head, slice of
// 64 value columns), or some of its segments. The pass over sums has a CTA per segment, kRowDim rows and 64 value
// columns. Roles of warpgroups:
//   state    the first one: carries the state, up to two chunks ahead of the output
//   output   kOutputGroups of them, chunk by chunk in turn; none in the pass over sums
//   loads    the last one: one warp for b and c, one for a, and for packed batches one that fetches ahead what the
//            first job begins with and one that hands out jobs. In the pass over sums one warp for b and c, and for
//            packed batches one that hands out jobs
#pragma once

#include "ptx/dependent_launch.cuh"
#include "ptx/dynamic_shared.cuh"
#include "ptx/lane.cuh"
#include "ptx/register_count.cuh"
#include "segmented_scan/combine_segments.cuh"
#include "segmented_scan/job_warp.cuh"
#include "segmented_scan/load_warps.cuh"
#include "segmented_scan/output_warps.cuh"
#include "segmented_scan/packed_state_warps.cuh"
#include "segmented_scan/state_warps.cuh"

namespace lattn::cuda {

template <typename T, int kRowDim, bool kSums, bool kPacked = false>
struct SegmentedScan : ScanLayout<T, kRowDim, kSums, kPacked> {
    using Layout = ScanLayout<T, kRowDim, kSums, kPacked>;
    using Layout::kWarpsPerGroup;
    using Layout::kWithOutput;
    using typename Layout::Config;
    using typename Layout::Params;
    using typename Layout::Shared;

    __device__ static void init_barriers(Shared& shared) {
        for (int i = 0; i < Layout::kStages; ++i) {
            ptx::mbarrier_init(shared.full[i], 1);
            ptx::mbarrier_init(shared.empty[i], Layout::kReaders);
        }
        if constexpr (kWithOutput) {
            for (int i = 0; i < Config::kRowStages; ++i) {
                ptx::mbarrier_init(shared.exchange.rows_full[i], 1);
                ptx::mbarrier_init(shared.exchange.rows_empty[i], kWarpsPerGroup);
            }
            for (int i = 0; i < Config::kStateBuffers; ++i) {
                ptx::mbarrier_init(shared.exchange.state_full[i], Layout::kStateArrivals);
                ptx::mbarrier_init(shared.exchange.state_empty[i], Layout::kStateArrivals);
            }
        }
        if constexpr (kPacked) {
            for (ptx::Mbarrier& full : shared.packed.job_full) ptx::mbarrier_init(full, 1);
            for (ptx::Mbarrier& empty : shared.packed.job_empty) ptx::mbarrier_init(empty, Layout::kJobReaders);
            for (ptx::Mbarrier& full : shared.packed.weights_full) ptx::mbarrier_init(full, 1);
            for (ptx::Mbarrier& empty : shared.packed.weights_empty) ptx::mbarrier_init(empty, kWarpsPerGroup);
        }
        ptx::fence_mbarrier_init();
    }

    __device__ static void prefetch_maps(const Params& p) {
        if (kWithOutput) {
            ptx::prefetch_map(p.a.map);
            if (Layout::call_of(p).written == kElementOut) ptx::prefetch_map(p.out.map);
        }
        ptx::prefetch_map(p.b.map);
        ptx::prefetch_map(p.c.map);
    }

    // The first kernel of a call waits for what wrote the inputs. Those after it start once it has waited. Where a scan
    // waits for sums, its state warps do so, and a warp without work on behalf of the next kernel.
    __device__ static void start(const SegmentedScanParams& p) {
        if (kWithOutput && p.split) return;
        if (!p.overlaps) ptx::wait_for_prior_kernel();
        ptx::let_next_kernel_start();
    }

    __device__ static void let_following_scan_start(const SegmentedScanParams& p) {
        if (!p.split || !p.followed) return;
        if (!p.overlaps) ptx::wait_for_prior_kernel();
        ptx::let_next_kernel_start();
    }

    // For the parameters of the sequences. The warp that hands out jobs lets the next kernel start.
    __device__ static void start(const PackedScanParams&) { ptx::wait_for_prior_kernel(); }

    __device__ static void run(const Params& p) {
        LATTN_DYNAMIC_SHARED(shared_memory);
        constexpr uint32_t kAlignment = Config::kAlignment;
        const uint32_t padding = (kAlignment - ptx::shared_address(shared_memory) % kAlignment) % kAlignment;
        Shared& shared = *reinterpret_cast<Shared*>(reinterpret_cast<char*>(shared_memory) + padding);
        if (threadIdx.x == 0) {
            init_barriers(shared);
        } else if (threadIdx.x == 32) {
            prefetch_maps(p);
        }
        // Where one of the warps looks ahead, each waits for the kernel before this one by itself.
        constexpr bool kLooksAhead = kPacked && kWithOutput;
        if constexpr (!kLooksAhead) start(p);
        if constexpr (!kWithOutput && !kPacked) {
            const typename Layout::Job job(p, p, blockIdx.x);
            if (job.first_chunk == job.end_chunk) return;
        }
        __syncthreads();

        const int warp = ptx::of_first_lane(static_cast<int>(threadIdx.x) / 32);
        const int group = warp / kWarpsPerGroup;
        if constexpr (kLooksAhead) {
            const bool loads = group > Config::kOutputGroups;
            if (loads && warp % kWarpsPerGroup == 2) LoadWarps<T, kRowDim, kSums, kPacked>::prefetch_first_job(p);
            __syncwarp();
            const bool hands_out_jobs = loads && warp % kWarpsPerGroup == 3;
            if (!hands_out_jobs) start(p); // JobWarp has something to do before
        }
        if (group == 0) {
            if constexpr (kWithOutput)
                ptx::take_registers<kPacked ? Config::kPackedStateRegisters : Config::kStateRegisters>();
            if constexpr (Layout::kCopiesStates)
                PackedStateWarps<T, kRowDim>::run(p, shared);
            else
                StateWarps<T, kRowDim, kSums, kPacked>::run(p, shared);
            // No kernel is complete before the one before it is.
            if constexpr (!kPacked)
                if (p.overlaps) ptx::wait_for_prior_kernel();
        } else if (kWithOutput && group <= Config::kOutputGroups) {
            if constexpr (kWithOutput) {
                ptx::take_registers<Config::kOutputRegisters>();
                OutputWarps<T, kRowDim, kPacked>::run(p, shared, group - 1);
            }
        } else {
            if constexpr (kWithOutput)
                ptx::give_registers<kPacked ? Config::kPackedLoadRegisters : Config::kLoadRegisters>();
            using Loads = LoadWarps<T, kRowDim, kSums, kPacked>;
            // One after the other would keep the number of the warp.
            if (warp % kWarpsPerGroup == 0) {
                Loads::run(p, shared);
            } else if (warp % kWarpsPerGroup == 1) {
                if constexpr (kWithOutput)
                    Loads::run_rows(p, shared);
                else if constexpr (kPacked)
                    JobWarp<T, kRowDim, kSums>::run(p, shared);
            } else if (warp % kWarpsPerGroup == 2) {
                if constexpr (kWithOutput && !kPacked) let_following_scan_start(p);
            } else {
                if constexpr (kWithOutput && kPacked) JobWarp<T, kRowDim, kSums>::run(p, shared);
            }
        }
    }
};

} // namespace lattn::cuda

#define LATTN_SEGMENTED_SCAN_KERNELS(suffix, type, row_dim)                                                  \
    extern "C" __global__ void __launch_bounds__(lattn::cuda::SegmentedScanConfig<row_dim>::kScanThreads, 1) \
        lattn_segmented_scan_##suffix(const __grid_constant__ lattn::cuda::SegmentedScanParams params) {     \
        lattn::cuda::SegmentedScan<type, row_dim, false>::run(params);                                       \
    }                                                                                                        \
    extern "C" __global__ void __launch_bounds__(lattn::cuda::SegmentedScanConfig<row_dim>::kCombineThreads) \
        lattn_combine_segments_##suffix(const __grid_constant__ lattn::cuda::SegmentedScanParams params) {   \
        lattn::cuda::CombineSegments<row_dim>::run(params);                                                  \
    }

#define LATTN_SEGMENT_SUMS_KERNEL(suffix, type, row_dim)                                               \
    extern "C" __global__ void __launch_bounds__(lattn::cuda::SegmentSumConfig<row_dim>::kThreads,     \
                                                 lattn::cuda::SegmentSumConfig<row_dim>::kCtas)        \
        lattn_segment_sums_##suffix(const __grid_constant__ lattn::cuda::SegmentedScanParams params) { \
        lattn::cuda::SegmentedScan<type, row_dim, true>::run(params);                                  \
    }

#define LATTN_PACKED_SCAN_KERNELS(suffix, type, row_dim)                                                     \
    extern "C" __global__ void __launch_bounds__(lattn::cuda::SegmentedScanConfig<row_dim>::kScanThreads, 1) \
        lattn_packed_scan_##suffix(const __grid_constant__ lattn::cuda::PackedScanParams params) {           \
        lattn::cuda::SegmentedScan<type, row_dim, false, true>::run(params);                                 \
    }                                                                                                        \
    extern "C" __global__ void __launch_bounds__(lattn::cuda::SegmentedScanConfig<row_dim>::kCombineThreads) \
        lattn_combine_packed_##suffix(const __grid_constant__ lattn::cuda::PackedScanParams params) {        \
        lattn::cuda::CombineSegments<row_dim>::run(params);                                                  \
    }

#define LATTN_PACKED_SUMS_KERNEL(suffix, type)                                                                         \
    extern "C" __global__ void __launch_bounds__(lattn::cuda::SegmentSumConfig<lattn::cuda::kSumRows>::kPackedThreads, \
                                                 lattn::cuda::SegmentSumConfig<lattn::cuda::kSumRows>::kCtas)          \
        lattn_packed_sums_##suffix(const __grid_constant__ lattn::cuda::PackedScanParams params) {                     \
        lattn::cuda::SegmentedScan<type, lattn::cuda::kSumRows, true, true>::run(params);                              \
    }
