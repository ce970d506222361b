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

    // Calls load(p, job, chunk, place) for every chunk of this CTA, with a place in the ring that is free.
    template <int kPlaces, typename Load>
    __device__ static void for_each_chunk(const Params& params, Shared& shared, ptx::Mbarrier (&empty)[kPlaces],
                                          Load load) {
        typename Layout::template Ring<kPlaces> ring;
        Layout::for_each_job(params, shared, [&](const Current& current) {
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

    // b and c. The last chunk of a sequence in a packed batch reaches into the next one, whose tokens are cleared
    // before anyone sees them: a product with a weight of zero is a number only if its other factor is one.
    __device__ static void run(const Params& params, Shared& shared) {
        for_each_chunk(params, shared, shared.empty, [&](const SequenceScan& p, const Job& job, int chunk, int place) {
            ptx::Mbarrier* full = &shared.full[place];
            bool closes = false;
            if constexpr (kPacked) {
                closes = chunk == Layout::closing_chunk(p, job);
                if (closes) full = &shared.packed.loaded[place];
            }
            if (ptx::elect_one()) load_stage(params, job, Layout::first_token(p, chunk), shared.stage[place], *full);
            __syncwarp();
            if constexpr (kPacked && !kWithOutput)
                if (closes) close(p, chunk, place, shared);
        });
    }

    // The closing chunk of a job: once it is there, what is not of its sequence is cleared, and it is given out.
    __device__ static void close(const SequenceScan& p, int chunk, int place, Shared& shared) {
        const int tokens = Layout::tokens_of(p, chunk);
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

    // In a warp of its own, so that loads go on meanwhile. It also fetches what the next job will be told and the state
    // that it starts from: nothing else is under way when a job begins.
    __device__ static void run_closing(const Params& params, Shared& shared) {
        Layout::for_each_job(params, shared, [&](const Current& current) {
            prefetch_job(params, current.kept().index + static_cast<int>(gridDim.x));
            const int place = shared.packed.first_place - current.job().first_chunk; // that of chunk 0 would be
            const int chunk = Layout::closing_chunk(current.params(), current.job());
            close(current.params(), chunk, (place + chunk) % Layout::kStages, shared);
            if (ptx::elect_one()) shared.packed.first_place = (place + current.end_chunk()) % Layout::kStages;
        });
    }

    __device__ static void prefetch_job(const PackedScanParams& params, unsigned index) {
        if (index >= static_cast<unsigned>(Layout::job_count(params))) return;
        const SequenceScan& p = params.sequences[params.parts[index / params.jobs_per_part].sequence];
        const int lane = static_cast<int>(threadIdx.x) % 32;
        constexpr int kLine = 128;
        if (lane * kLine < static_cast<int>(sizeof(SequenceScan)) + kLine)
            ptx::prefetch_line(reinterpret_cast<const char*>(&p) + min(lane * kLine, int{sizeof(SequenceScan)} - 1));
        const int bytes = p.prefetched_row_bytes;
        if (bytes == 0) return;
        index %= params.jobs_per_part;
        const char* row = reinterpret_cast<const char*>(p.initial.data) +
                          index / params.value_slices * p.initial.stride_h * (bytes / Layout::Config::kValueCols) +
                          index % params.value_slices * bytes;
#pragma unroll 1
        for (int i = lane; i < p.row_dim; i += 32) ptx::prefetch_bytes(row + i * p.prefetched_row_stride, bytes);
    }

    // a: what it holds of another sequence's tokens meets nothing but their own output, which is not stored.
    __device__ static void run_rows(const Params& params, Shared& shared) {
        auto& exchange = shared.exchange;
        for_each_chunk(params, shared, exchange.rows_empty,
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
