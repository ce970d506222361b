// The loading warps of the segmented scan: b and c of chunk after chunk into a ring of stages, a into a ring of its
// own.
#pragma once

#include "ptx/elect.cuh"
#include "ptx/tensor_copy.cuh"
#include "ptx/tensor_map_edit.cuh"
#include "segmented_scan/layout.cuh"

namespace lattn::cuda {

template <typename T, int kRowDim, int kSumSide, bool kPacked>
struct LoadWarps : ScanLayout<T, kRowDim, kSumSide, kPacked> {
    using Layout = ScanLayout<T, kRowDim, kSumSide, kPacked>;
    using Layout::kChunk;
    using Layout::kTileBytes;
    using typename Layout::Current;
    using typename Layout::Job;
    using typename Layout::Params;
    using typename Layout::Shared;
    using typename Layout::Stage;

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
        __device__ void load(char (&tiles)[kTiles], int first_token, ptx::Mbarrier& full,
                             ptx::Keep keep = ptx::Keep::kNormally) const {
#pragma unroll
            for (int tile = 0; tile < kTiles / kTileBytes; ++tile)
                ptx::load_box(tiles + tile * kTileBytes, map, full,
                              {first_column + tile * 64, first_token, head, batch}, keep);
        }
    };

    // Calls load(p, job, first token, place) for every chunk of this CTA, by one lane, with a place in the ring that is
    // free; acquire(p) before those of a job, if the maps were made on the device.
    template <int kPlaces, typename Acquire, typename Load>
    __device__ static void for_each_chunk(const Params& params, Shared& shared, ptx::Mbarrier (&empty)[kPlaces],
                                          ptx::Mbarrier (&full)[kPlaces], uint32_t bytes, Acquire acquire, Load load) {
        typename Layout::template Ring<kPlaces> ring;
        Layout::for_each_job(params, shared, [&](const Current& current) {
            const SegmentedScanParams& p = current.params();
            const Job job = current.job();
            if constexpr (kPacked) acquire(p);
#pragma unroll 1
            for (int chunk = job.first_chunk; chunk < job.end_chunk; ++chunk, ring.advance()) {
                ptx::mbarrier_wait(empty[ring.index], ring.parity ^ 1);
                if (ptx::elect_one()) {
                    ptx::mbarrier_arrive_expect_bytes(full[ring.index], bytes);
                    load(p, job, Layout::first_token(p, chunk), ring.index);
                }
                __syncwarp();
            }
        });
    }

    // b and c.
    __device__ static void run(const Params& params, Shared& shared) {
        const auto acquire = [](const SegmentedScanParams& p) {
            ptx::acquire_map(p.b.map);
            ptx::acquire_map(p.c.map);
        };
        for_each_chunk(params, shared, shared.empty, shared.full, sizeof(Stage), acquire,
                       [&](const SegmentedScanParams& p, const Job& job, int first_token, int place) {
                           Source(p.b, job, job.row_part * kRowDim)
                               .load(shared.stage[place].b, first_token, shared.full[place]);
                           Source(p.c, job, job.value_column())
                               .load(shared.stage[place].c, first_token, shared.full[place]);
                       });
    }

    // a
    __device__ static void run_rows(const Params& params, Shared& shared) {
        auto& exchange = shared.exchange;
        const auto acquire = [](const SegmentedScanParams& p) { ptx::acquire_map(p.a.map); };
        for_each_chunk(params, shared, exchange.rows_empty, exchange.rows_full, sizeof(exchange.rows[0]), acquire,
                       [&](const SegmentedScanParams& p, const Job& job, int first_token, int place) {
                           Source(p.a, job, 0)
                               .load(exchange.rows[place], first_token, exchange.rows_full[place],
                                     Layout::keep_of_output(p));
                       });
    }
};

} // namespace lattn::cuda
