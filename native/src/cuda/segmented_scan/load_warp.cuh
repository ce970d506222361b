// The loading warp of the segmented scan: a, b, c of chunk after chunk into a ring of stages.
#pragma once

#include "ptx/elect.cuh"
#include "ptx/tensor_copy.cuh"
#include "segmented_scan/layout.cuh"

namespace lattn::cuda {

template <typename T, int kRowDim, bool kWithOutput>
struct LoadWarp : ScanLayout<T, kRowDim, kWithOutput> {
    using Layout = ScanLayout<T, kRowDim, kWithOutput>;
    using typename Layout::Job;
    using typename Layout::Shared;
    using typename Layout::Stage;
    using Layout::kChunk;
    using Layout::kRowTiles;
    using Layout::kStages;
    using Layout::kTileBytes;

    // Where a tensor's boxes of a job lie.
    struct Source {
        const ptx::TensorMap& map;
        int first_column;
        int head;
        int batch;

        __device__ Source(const BoxedTensor& tensor, const Job& job, int column)
            : map(tensor.map),
              first_column(column),
              head(tensor.repeats_heads ? 0 : job.head / tensor.heads_per_head),
              batch(tensor.repeats_batch ? 0 : job.batch) {}

        template <int kTiles>
        __device__ void load(char (&tiles)[kTiles], int first_token, ptx::Mbarrier& full) const {
#pragma unroll
            for (int tile = 0; tile < kTiles / kTileBytes; ++tile)
                ptx::load_box(tiles + tile * kTileBytes, map, full,
                              {first_column + tile * 64, first_token, head, batch});
        }
    };

    __device__ static void run(const SegmentedScanParams& p, Shared& shared) {
        typename Layout::template Ring<kStages> ring;
        const int jobs = Layout::job_count(p);
#pragma unroll 1
        for (int index = blockIdx.x; index < jobs; index += gridDim.x) {
            const Job job(p, index);
            const Source a(kWithOutput ? p.a : p.b, job, 0);
            const Source b(p.b, job, 0);
            const Source c(p.c, job, job.value_column());
#pragma unroll 1
            for (int chunk = job.first_chunk; chunk < job.end_chunk; ++chunk, ring.advance()) {
                Stage& stage = shared.stage[ring.index];
                ptx::Mbarrier& full = shared.full[ring.index];
                ptx::mbarrier_wait(shared.empty[ring.index], ring.parity ^ 1);
                if (ptx::elect_one()) {
                    ptx::mbarrier_arrive_expect_bytes(full, sizeof(Stage));
                    b.load(stage.b, chunk * kChunk, full);
                    if constexpr (kWithOutput) a.load(stage.a, chunk * kChunk, full);
                    c.load(stage.c, chunk * kChunk, full);
                }
                __syncwarp();
            }
        }
    }
};

} // namespace lattn::cuda
