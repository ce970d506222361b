// The segmented scan on wgmma (sm_90a); segmented_scan_params.h has the formulas, docs/kernels/forward.md the reasons.
//
// Grid: as many CTAs as fit at once, or fewer; each works on one job after the other. A job is a (batch, head, slice of 64
// value columns), or one of its segments. The pass over sums has a CTA per job. Three roles:
//   state warps    0 to 3: carry the state, one chunk ahead of the output warps
//   output warps   4 to 7: not in the pass over sums
//   loading warp   8 (4 in the pass over sums); a scan's warps 9 to 11 only give their registers away
#pragma once

#include "ptx/dependent_launch.cuh"
#include "ptx/dynamic_shared.cuh"
#include "ptx/register_count.cuh"
#include "segmented_scan/combine_segments.cuh"
#include "segmented_scan/load_warp.cuh"
#include "segmented_scan/output_warps.cuh"
#include "segmented_scan/state_warps.cuh"

namespace lattn::cuda {

template <typename T, int kRowDim, bool kWithOutput>
struct SegmentedScan : ScanLayout<T, kRowDim, kWithOutput> {
    using Layout = ScanLayout<T, kRowDim, kWithOutput>;
    using typename Layout::Config;
    using typename Layout::Shared;
    using Layout::kWarpsPerGroup;

    __device__ static void init_barriers(Shared& shared) {
        for (int i = 0; i < Layout::kStages; ++i) {
            ptx::mbarrier_init(shared.full[i], 1);
            ptx::mbarrier_init(shared.empty[i], Layout::kGroups * kWarpsPerGroup);
        }
        if constexpr (kWithOutput) {
            for (int i = 0; i < Config::kStateBuffers; ++i) {
                ptx::mbarrier_init(shared.exchange.state_full[i], kWarpsPerGroup);
                ptx::mbarrier_init(shared.exchange.state_empty[i], kWarpsPerGroup);
            }
        }
        ptx::fence_mbarrier_init();
    }

    __device__ static void run(const SegmentedScanParams& p) {
        LATTN_DYNAMIC_SHARED(shared_memory);
        constexpr uint32_t kAlignment = Config::kAlignment;
        const uint32_t padding = (kAlignment - ptx::shared_address(shared_memory) % kAlignment) % kAlignment;
        Shared& shared = *reinterpret_cast<Shared*>(reinterpret_cast<char*>(shared_memory) + padding);
        if (threadIdx.x == 0) {
            init_barriers(shared);
        } else if (threadIdx.x == 32) {
            if (kWithOutput) {
                ptx::prefetch_map(p.a.map);
                ptx::prefetch_map(p.out.map);
            }
            ptx::prefetch_map(p.b.map);
            ptx::prefetch_map(p.c.map);
        }
        // The first pass of a call waits for what wrote the inputs. The passes after it start once it has waited.
        if (!kWithOutput || !p.split) {
            ptx::wait_for_prior_kernel();
            ptx::let_next_kernel_start();
        }
        __syncthreads();

        const int warp = threadIdx.x / 32;
        if (warp < kWarpsPerGroup) {
            if constexpr (kWithOutput) ptx::take_registers<Config::kStateRegisters>();
            StateWarps<T, kRowDim, kWithOutput>::run(p, shared);
        } else if (kWithOutput && warp < 2 * kWarpsPerGroup) {
            if constexpr (kWithOutput) {
                ptx::take_registers<Config::kOutputRegisters>();
                OutputWarps<T, kRowDim>::run(p, shared);
            }
        } else {
            if constexpr (kWithOutput) ptx::give_registers<Config::kLoadRegisters>();
            if (warp % kWarpsPerGroup == 0) LoadWarp<T, kRowDim, kWithOutput>::run(p, shared);
        }
    }
};

} // namespace lattn::cuda

#define LATTN_SEGMENTED_SCAN_KERNELS(suffix, type, row_dim)                                                  \
    extern "C" __global__ void __launch_bounds__(lattn::cuda::SegmentedScanConfig<row_dim>::kScanThreads, 1) \
        lattn_segmented_scan_##suffix(const __grid_constant__ lattn::cuda::SegmentedScanParams params) {     \
        lattn::cuda::SegmentedScan<type, row_dim, true>::run(params);                                        \
    }                                                                                                        \
    extern "C" __global__ void __launch_bounds__(lattn::cuda::SegmentedScanConfig<row_dim>::kSumThreads,         \
                                                 lattn::cuda::SegmentedScanConfig<row_dim>::kSumCtas)            \
        lattn_segment_sums_##suffix(const __grid_constant__ lattn::cuda::SegmentedScanParams params) {       \
        lattn::cuda::SegmentedScan<type, row_dim, false>::run(params);                                       \
    }                                                                                                        \
    extern "C" __global__ void __launch_bounds__(lattn::cuda::SegmentedScanConfig<row_dim>::kCombineThreads) \
        lattn_combine_segments_##suffix(const __grid_constant__ lattn::cuda::SegmentedScanParams params) {   \
        lattn::cuda::combine_segments<row_dim>(params);                                                      \
    }
