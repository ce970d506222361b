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

    // Where a tensor's boxes of a job lie.
    struct Source {
        const ptx::TensorMap& map;
        int first_column;
        int head;
        int batch;

        __device__ Source(const BoxedTensor& tensor, int its_head, int its_batch, int column)
            : map(tensor.map),
              first_column(column),
              head(tensor.repeats_heads ? 0 : its_head / tensor.heads_per_head),
              batch(tensor.repeats_batch ? 0 : its_batch) {}

        __device__ Source(const BoxedTensor& tensor, const Job& job, int column)
            : Source(tensor, job.head, job.batch, column) {}

        __device__ ptx::Coordinates box(int tile, int first_token) const {
            return {first_column + tile * 64, first_token, head, batch};
        }

        template <int kTiles>
        __device__ void load(char (&tiles)[kTiles], int first_token, ptx::Mbarrier& full,
                             ptx::Keep keep = ptx::Keep::kNormally) const {
#pragma unroll
            for (int tile = 0; tile < kTiles / kTileBytes; ++tile)
                ptx::load_box(tiles + tile * kTileBytes, map, full, box(tile, first_token), keep);
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

    __device__ static void load_stage(const Params& params, const Job& job, int first_token, Stage& stage,
                                      ptx::Mbarrier& full) {
        ptx::mbarrier_arrive_expect_bytes(full, sizeof(Stage));
        Source(params.b, job, job.row_part * kSumRows).load(stage.b, first_token, full);
        Source(params.c, job, job.value_column()).load(stage.c, first_token, full);
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

    // b and c. The last chunk of a sequence in a packed batch reaches into the next one, whose tokens are cleared
    // before anyone sees them: a product with a weight of zero is a number only if its other factor is one.
    __device__ static void run(const Params& params, Shared& shared) {
        const auto begin = [&](const Current& current, const Job& job, auto& ring) {
            if constexpr (Layout::kCopiesStates) load_state(params, current, job, shared, ring);
        };
        const auto load = [&](const Current& current, const Job& job, int chunk, int place) {
            ptx::Mbarrier* full = &shared.full[place];
            bool closes = false;
            if constexpr (kPacked) {
                closes = chunk == Layout::closing_chunk(current.sequence(), job);
                if (closes) full = &shared.packed.loaded[place];
            }
            if (ptx::elect_one())
                load_stage(params, job, Layout::first_token(current.call(), current.sequence(), chunk),
                           shared.stage[place], *full);
            __syncwarp();
            if constexpr (kPacked && !kWithOutput)
                if (closes) close(current, chunk, place, shared);
        };
        for_each_chunk(params, shared, shared.empty, begin, load);
    }

    // The closing chunk of a job: once it is there, what is not of its sequence is cleared, and it is given out.
    __device__ static void close(const Current& current, int chunk, int place, Shared& shared) {
        const int tokens = Layout::tokens_of(current.sequence(), chunk);
        ptx::mbarrier_wait(shared.packed.loaded[place], shared.packed.parities >> place & 1);
        __syncwarp();
        if (tokens < kChunk) {
            clear_rows(shared.stage[place].b, tokens);
            clear_rows(shared.stage[place].c, tokens);
            ptx::fence_async_shared();
            __syncwarp();
        }
        if (ptx::elect_one()) {
            shared.packed.parities ^= 1u << place;
            ptx::mbarrier_arrive(shared.full[place]);
        }
        __syncwarp();
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
            const int token = static_cast<int>(sequence.first) + (call.backwards ? chunks - 1 - i : i) * kChunk;
            ptx::prefetch_box(params.c.map, Source(params.c, head, 0, column).box(0, token));
            // The slices of a head have these in common.
#pragma unroll 1
            for (int tile = slice; tile < Layout::kRowTiles; tile += call.value_slices) {
                ptx::prefetch_box(params.b.map, Source(params.b, head, 0, 0).box(tile, token));
                ptx::prefetch_box(params.a.map, Source(params.a, head, 0, 0).box(tile, token));
            }
        }
    }

    // In a warp of its own, so that loads go on meanwhile.
    __device__ static void run_closing(const Params& params, Shared& shared) {
        int first_place = 0; // in the ring, of the job's first chunk
        Layout::for_each_job(params, shared, [&](const Current& current) {
            const Job job = current.job();
            const int chunk = Layout::closing_chunk(current.sequence(), job);
            first_place += Layout::places_of_state(current);
            close(current, chunk, (first_place + chunk - job.first_chunk) % Layout::kStages, shared);
            first_place = (first_place + job.end_chunk - job.first_chunk) % Layout::kStages;
        });
    }

    // a: what it holds of another sequence's tokens meets nothing but their own output, which is not stored.
    __device__ static void run_rows(const Params& params, Shared& shared) {
        auto& exchange = shared.exchange;
        const auto load = [&](const Current& current, const Job& job, int chunk, int place) {
            if (!ptx::elect_one()) return;
            ptx::mbarrier_arrive_expect_bytes(exchange.rows_full[place], sizeof(exchange.rows[0]));
            Source(params.a, job, 0)
                .load(exchange.rows[place], Layout::first_token(current.call(), current.sequence(), chunk),
                      exchange.rows_full[place], Layout::keep_of_output(current.call()));
        };
        for_each_chunk(
            params, shared, exchange.rows_empty, [](const auto&...) {}, load);
    }
};

} // namespace lattn::cuda
