// The loading warps of the segmented scan: b and c of chunk after chunk into a ring of stages, a into a ring of its
// own.
#pragma once

#include "ptx/elect.cuh"
#include "ptx/tensor_copy.cuh"
#include "segmented_scan/few_sequences.cuh"
#include "segmented_scan/layout.cuh"

namespace lattn::cuda {

template <typename T, int kRowDim, bool kSums, bool kPacked>
struct LoadWarps : ScanLayout<T, kRowDim, kSums, kPacked> {
    using Layout = ScanLayout<T, kRowDim, kSums, kPacked>;
    using Layout::kChunk;
    using Layout::kTileBytes;
    using Layout::kWithOutput;
    using typename Layout::Config;
    using typename Layout::Current;
    using typename Layout::Job;
    using typename Layout::Params;
    using typename Layout::Shared;
    using typename Layout::Stage;

    // Kernels of packed fp16 serve smaller D than theirs, so that tiles may lie beyond the tensor's columns.
    static constexpr bool kMayLackColumns = kPacked && Layout::Element::kScaled;

    // Where a tensor's boxes of a job lie.
    struct Source {
        const BoxedTensor& tensor;
        int first_column;
        int head;
        int batch;

        __device__ Source(const BoxedTensor& its_tensor, int its_head, int its_batch, int column)
            : tensor(its_tensor),
              first_column(column),
              head(tensor.repeats_heads ? 0 : its_head / tensor.heads_per_head),
              batch(tensor.repeats_batch ? 0 : its_batch) {}

        __device__ Source(const BoxedTensor& its_tensor, const Job& job, int column)
            : Source(its_tensor, job.head, job.batch, column) {}

        __device__ ptx::Coordinates box(int tile, int first_token, int tokens) const {
            return Layout::template box_at<kChunk>(first_column + tile * 64, first_token, tokens, head, batch);
        }

        __device__ const ptx::TensorMap& map(const Params& params, int tile) const {
            if constexpr (kMayLackColumns)
                if (first_column + tile * 64 >= tensor.columns) return params.zeros;
            return tensor.map;
        }

        template <int kTiles>
        __device__ void load(const Params& params, char (&tiles)[kTiles], int first_token, int tokens,
                             ptx::Mbarrier& full, ptx::Keep keep = ptx::Keep::kNormally) const {
#pragma unroll
            for (int tile = 0; tile < kTiles / kTileBytes; ++tile)
                ptx::load_box(tiles + tile * kTileBytes, map(params, tile), full, box(tile, first_token, tokens), keep);
        }
    };

    // Calls begin(current, job, ring) for every job of this CTA, and load(current, job, chunk, place) for its chunks,
    // with a place in the ring that is free.
    template <int kPlaces, typename Begin, typename Load>
    __device__ static void for_each_chunk(const Params& params, Shared& shared, ptx::Mbarrier (&empty)[kPlaces],
                                          Begin begin, Load load) {
        typename Layout::template Ring<kPlaces> ring;
        Layout::for_each_job(params, shared, [&](const Current& current) {
            const Job job = current.job();
            begin(current, job, ring);
#pragma unroll 1
            for (int chunk = job.first_chunk; chunk < current.end_chunk(); ++chunk, ring.advance()) {
                ptx::mbarrier_wait(empty[ring.index], ring.parity ^ 1);
                load(current, job, chunk, ring.index);
                __syncwarp();
            }
        });
    }

    // The state that a job starts from, where tensor copies read it.
    __device__ static void load_state(const Params& params, const Current& current, const Job& job, Shared& shared,
                                      typename Layout::template Ring<Layout::kStages>& ring) {
#pragma unroll 1
        for (int part = 0; part < Layout::places_of_state(current); ++part, ring.advance()) {
            ptx::mbarrier_wait(shared.empty[ring.index], ring.parity ^ 1);
            if (ptx::elect_one()) {
                char* to = shared.stage[ring.index].b;
                ptx::mbarrier_arrive_expect_bytes(shared.full[ring.index], sizeof(Stage::b));
#pragma unroll 1
                for (int columns = 0; columns < 2; ++columns)
                    ptx::load_box(to + columns * Layout::kStateColumnBytes, params.pool_map, shared.full[ring.index],
                                  {job.value_column() + columns * kStateBoxColumns, part * Config::kStatePartRows,
                                   job.head, current.sequence().copied_slot});
            }
            __syncwarp();
        }
    }

    // b and c.
    __device__ static void run(const Params& params, Shared& shared) {
        const auto begin = [&](const Current& current, const Job& job, auto& ring) {
            if constexpr (Layout::kCopiesStates) load_state(params, current, job, shared, ring);
        };
        const auto load = [&](const Current& current, const Job& job, int chunk, int place) {
            if (!ptx::elect_one()) return;
            const int first_token = Layout::first_token(current.call(), current.sequence(), chunk);
            const int tokens = Layout::tokens_of(current.sequence(), chunk);
            Stage& stage = shared.stage[place];
            ptx::Mbarrier& full = shared.full[place];
            ptx::mbarrier_arrive_expect_bytes(full, sizeof(Stage));
            Source(params.b, job, job.row_part * kSumRows).load(params, stage.b, first_token, tokens, full);
            Source(params.c, job, job.value_column()).load(params, stage.c, first_token, tokens, full);
        };
        for_each_chunk(params, shared, shared.empty, begin, load);
    }

    // What this CTA's first job begins with, to L2, while the kernel before this one drains. That one may still write
    // the offsets and slots, and then the wrong places are fetched.
    __device__ static void prefetch_first_job(const PackedScanParams& params) {
        if (!params.few) return;
        const CallScan& call = params.call;
        const FewSequences sequences(params);
        const auto part = static_cast<int>(blockIdx.x / params.jobs_per_part);
        if (part >= sequences.count()) return;
        const Sequence sequence = sequences.at(sequences.index_of(part));
        const auto index = static_cast<int>(blockIdx.x % params.jobs_per_part);
        const int head = index / call.value_slices;
        const int slice = index % call.value_slices;
        const int column = slice * Config::kValueCols;
        const auto chunks = static_cast<int>(PackedSequence::chunks_of(sequence));
        if (!ptx::elect_one()) return;
        if (params.copies_states && sequence.reads_state) {
#pragma unroll 1
            for (int row = 0; row < kRowDim; row += Config::kStatePartRows) {
#pragma unroll
                for (int box = 0; box < Config::kValueCols; box += kStateBoxColumns)
                    ptx::prefetch_box(params.pool_map, {column + box, row, head, static_cast<int>(sequence.entry)});
            }
        }
#pragma unroll 1
        for (int i = 0; i < min(chunks, Config::kPrefetchedChunks); ++i) {
            const int first = (call.backwards ? chunks - 1 - i : i) * kChunk;
            const int token = static_cast<int>(sequence.first) + first;
            const int tokens = min(static_cast<int>(sequence.tokens) - first, kChunk);
            ptx::prefetch_box(params.c.map, Source(params.c, head, 0, column).box(0, token, tokens));
            // The slices of a head have these in common.
#pragma unroll 1
            for (int tile = slice; tile < Layout::kRowTiles; tile += call.value_slices) {
                ptx::prefetch_box(params.b.map, Source(params.b, head, 0, 0).box(tile, token, tokens));
                ptx::prefetch_box(params.a.map, Source(params.a, head, 0, 0).box(tile, token, tokens));
            }
        }
    }

    // a
    __device__ static void run_rows(const Params& params, Shared& shared) {
        auto& exchange = shared.exchange;
        const auto load = [&](const Current& current, const Job& job, int chunk, int place) {
            if (!ptx::elect_one()) return;
            ptx::mbarrier_arrive_expect_bytes(exchange.rows_full[place], sizeof(exchange.rows[0]));
            Source(params.a, job, 0)
                .load(params, exchange.rows[place], Layout::first_token(current.call(), current.sequence(), chunk),
                      Layout::tokens_of(current.sequence(), chunk), exchange.rows_full[place],
                      Layout::keep_of_output(current.call()));
        };
        for_each_chunk(
            params, shared, exchange.rows_empty, [](const auto&...) {}, load);
    }
};

} // namespace lattn::cuda
