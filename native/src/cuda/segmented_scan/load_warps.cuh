// The loading warps of the segmented scan: b and c of chunk after chunk into a ring of stages, a into a ring of its
// own.
#pragma once

#include "ptx/elect.cuh"
#include "ptx/prefetch.cuh"
#include "ptx/tensor_copy.cuh"
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

    static constexpr bool kPrefetches = kWithOutput && kRowDim <= 192; // beyond there are no registers for it

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

    // Calls load(p, job, chunk, place) for every chunk of this CTA, with a place in the ring that is free; begin(current)
    // before those of a job of a packed batch.
    template <int kPlaces, typename Begin, typename Load>
    __device__ static void for_each_chunk(const Params& params, Shared& shared, ptx::Mbarrier (&empty)[kPlaces],
                                          Begin begin, Load load) {
        typename Layout::template Ring<kPlaces> ring;
        Layout::for_each_job(params, shared, [&](const Current& current) {
            if constexpr (kPacked) begin(current);
            const SequenceScan& p = current.params();
            const Job job = current.job();
#pragma unroll 1
            for (int chunk = job.first_chunk; chunk < current.end_chunk(); ++chunk, ring.advance()) {
                ptx::mbarrier_wait(empty[ring.index], ring.parity ^ 1);
                load(p, job, chunk, ring.index);
                __syncwarp();
            }
        });
    }

    // The state that the state warps will want when they come to this job: the loads are some chunks ahead of them.
    __device__ static void prefetch_initial(const Current& current) {
        const SequenceScan& p = current.params();
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

    __device__ static void load_stage(const Params& params, const Job& job, int first_token, Stage& stage,
                                      ptx::Mbarrier& full) {
        ptx::mbarrier_arrive_expect_bytes(full, sizeof(Stage));
        Source(params.b, job, job.row_part * kRowDim).load(stage.b, first_token, full);
        Source(params.c, job, job.value_column()).load(stage.c, first_token, full);
    }

    // Zeros beyond the first `tokens` rows of tiles.
    template <int kBytes>
    __device__ static void clear_rows(char (&tiles)[kBytes], int tokens) {
        constexpr int kWords = kTileBytes / static_cast<int>(sizeof(uint4)); // of a tile
        const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll 1
        for (char* tile = tiles; tile < tiles + kBytes; tile += kTileBytes) {
#pragma unroll 1
            for (int word = tokens * (kWords / kChunk) + lane; word < kWords; word += 32)
                reinterpret_cast<uint4*>(tile)[word] = uint4{};
        }
    }

    // b and c. The last chunk of a sequence in a packed batch reaches into the next one, whose tokens are cleared before
    // anyone sees them: a product with a weight of zero is a number only if its other factor is one.
    __device__ static void run(const Params& params, Shared& shared) {
        const auto begin = [](const Current& current) {
            if constexpr (kPrefetches) prefetch_initial(current);
        };
        for_each_chunk(params, shared, shared.empty, begin,
                       [&](const SequenceScan& p, const Job& job, int chunk, int place) {
                           Stage& stage = shared.stage[place];
                           ptx::Mbarrier& full = shared.full[place];
                           const int first_token = Layout::first_token(p, chunk);
                           if constexpr (kPacked) {
                               const int tokens = Layout::tokens_of(p, chunk);
                               if (tokens < kChunk) {
                                   ptx::Mbarrier& loaded = shared.packed.short_chunk;
                                   if (ptx::elect_one()) load_stage(params, job, first_token, stage, loaded);
                                   __syncwarp();
                                   ptx::mbarrier_wait(loaded, shared.packed.short_chunk_parity);
                                   __syncwarp();
                                   if (ptx::elect_one()) shared.packed.short_chunk_parity ^= 1;
                                   clear_rows(stage.b, tokens);
                                   clear_rows(stage.c, tokens);
                                   ptx::fence_async_shared();
                                   __syncwarp();
                                   if (ptx::elect_one()) ptx::mbarrier_arrive(full);
                                   return;
                               }
                           }
                           if (ptx::elect_one()) load_stage(params, job, first_token, stage, full);
                       });
    }

    // a: what it holds of another sequence's tokens meets nothing but their own output, which is not stored.
    __device__ static void run_rows(const Params& params, Shared& shared) {
        auto& exchange = shared.exchange;
        for_each_chunk(params, shared, exchange.rows_empty, [](const Current&) {},
                       [&](const SequenceScan& p, const Job& job, int chunk, int place) {
                           if (!ptx::elect_one()) return;
                           ptx::mbarrier_arrive_expect_bytes(exchange.rows_full[place], sizeof(exchange.rows[0]));
                           Source(params.a, job, 0)
                               .load(exchange.rows[place], Layout::first_token(p, chunk), exchange.rows_full[place],
                                     Layout::keep_of_output(p));
                       });
    }
};

} // namespace lattn::cuda
