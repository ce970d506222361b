// The loading warps of the segmented scan: b and c of chunk after chunk into a ring of stages, a into a ring of its
// own.
#pragma once

#include "ptx/elect.cuh"
#include "ptx/prefetch.cuh"
#include "ptx/tensor_copy.cuh"
#include "ptx/tensor_map_edit.cuh"
#include "segmented_scan/layout.cuh"

namespace lattn::cuda {

template <typename T, int kRowDim, int kSumSide, bool kPacked>
struct LoadWarps : ScanLayout<T, kRowDim, kSumSide, kPacked> {
    using Layout = ScanLayout<T, kRowDim, kSumSide, kPacked>;
    using Layout::kChunk;
    using Layout::kTileBytes;
    using Layout::kWithOutput;
    using typename Layout::Current;
    using typename Layout::Job;
    using typename Layout::Params;
    using typename Layout::Shared;
    using typename Layout::Stage;

    static constexpr bool kPrefetches = kWithOutput && kRowDim < 256; // beyond there are no registers for it

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
    // free; begin(current) before those of a job of a packed batch.
    template <int kPlaces, typename Begin, typename Load>
    __device__ static void for_each_chunk(const Params& params, Shared& shared, ptx::Mbarrier (&empty)[kPlaces],
                                          ptx::Mbarrier (&full)[kPlaces], uint32_t bytes, Begin begin, Load load) {
        typename Layout::template Ring<kPlaces> ring;
        Layout::for_each_job(params, shared, [&](const Current& current) {
            if constexpr (kPacked) begin(current);
            const SegmentedScanParams& p = current.params();
            const Job job = current.job();
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

    // The state that the state warps will want when they come to this job: the loads are some chunks ahead of them.
    __device__ static void prefetch_initial(const Current& current) {
        const SegmentedScanParams& p = current.params();
        const int row_bytes = p.prefetched_row_bytes;
        if (row_bytes == 0 || p.initial.data == nullptr || current.job().segment() > 0) return;
        const char* row = reinterpret_cast<const char*>(p.initial.data) +
                          (current.job().head * p.initial.stride_h +
                           static_cast<int>(threadIdx.x) % 32 * p.initial.stride_row) *
                              (row_bytes / Layout::Config::kValueCols) +
                          current.job().slice * row_bytes;
#pragma unroll 1
        for (int i = static_cast<int>(threadIdx.x) % 32; i < current.params().row_dim; i += 32) {
            ptx::prefetch_bytes(row, row_bytes);
            row += current.params().prefetch_step;
        }
    }

    // b and c.
    __device__ static void run(const Params& params, Shared& shared) {
        const auto begin = [](const Current& current) {
            if constexpr (kPrefetches) prefetch_initial(current);
            ptx::acquire_map(current.params().b.map);
            ptx::acquire_map(current.params().c.map);
        };
        for_each_chunk(params, shared, shared.empty, shared.full, sizeof(Stage), begin,
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
        const auto begin = [](const Current& current) { ptx::acquire_map(current.params().a.map); };
        for_each_chunk(params, shared, exchange.rows_empty, exchange.rows_full, sizeof(exchange.rows[0]), begin,
                       [&](const SegmentedScanParams& p, const Job& job, int first_token, int place) {
                           Source(p.a, job, 0)
                               .load(exchange.rows[place], first_token, exchange.rows_full[place],
                                     Layout::keep_of_output(p));
                       });
    }
};

} // namespace lattn::cuda
