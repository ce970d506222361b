// The output warps of the segmented scan: P = mask(g^(i-j)) a b^T, a X, out = g^(i+1) a X + P c; through shared memory to
// the output. The scores a b^T of the next chunk are computed while this chunk's output is finished.
#pragma once

#include "ptx/ldmatrix.cuh"
#include "ptx/named_barrier.cuh"
#include "ptx/stmatrix.cuh"
#include "ptx/tensor_copy.cuh"
#include "ptx/wgmma.cuh"
#include "segmented_scan/layout.cuh"

namespace lattn::cuda {

template <typename T, int kRowDim>
struct OutputWarps : ScanLayout<T, kRowDim, true> {
    using Layout = ScanLayout<T, kRowDim, true>;
    using typename Layout::ChunkTile;
    using typename Layout::Config;
    using typename Layout::Element;
    using typename Layout::Job;
    using typename Layout::OperandA;
    using typename Layout::Shared;
    using typename Layout::Stage;
    using Layout::kChunk;
    using Layout::kRowSteps;
    using Layout::kStages;
    using Layout::kTileBytes;
    using Layout::kTokenSteps;
    using ByRow = ptx::Wgmma<T, ptx::BOrder::kKContiguous>;
    using ByColumn = ptx::Wgmma<T, ptx::BOrder::kNContiguous>;
    using Rows = OperandA[kRowSteps];
    static constexpr int kBarrier = 1; // named barrier of these warps

    __device__ static void load_rows(const char* a, Rows& rows) {
        const uint32_t base = ptx::shared_address(a);
#pragma unroll
        for (int step = 0; step < kRowSteps; ++step)
            ptx::ldmatrix_x4(rows[step], Layout::part_address(base, Layout::warp_in_group() * 16, step * 2));
    }

    // product = rows x^T for tiles x of 64 rows, not waited for.
    __device__ static void multiply_rows(const Rows& rows, const char* x, ChunkTile& product) {
        const uint32_t base = ptx::shared_address(x);
        ptx::wgmma_fence();
#pragma unroll
        for (int step = 0; step < kRowSteps; ++step)
            ByRow::multiply(product, rows[step],
                            ptx::wgmma_operand(base + step / 4 * kTileBytes + step % 4 * 32, kTileBytes), step > 0);
        ptx::wgmma_commit();
    }

    // out += weighted c, not waited for.
    __device__ static void add_values(const OperandA (&weighted)[kTokenSteps], const char* c, ChunkTile& out) {
        const uint32_t base = ptx::shared_address(c);
        ptx::wgmma_fence();
#pragma unroll
        for (int step = 0; step < kTokenSteps; ++step)
            ByColumn::multiply(out, weighted[step], ptx::wgmma_operand(base + step * 2048, kTileBytes), true);
        ptx::wgmma_commit();
    }

    // Weights of this thread's elements of a chunk's tiles, the same in every chunk of a job.
    struct Weights {
        ChunkTile pair; // g^(i-j) for j <= i
        float read[2];  // g^(i+1)

        __device__ Weights(const SegmentedScanParams& p, const Job& job) {
            const float rate = p.decay_rate[job.head];
            const int lane = threadIdx.x % 32;
            const int first_row = Layout::warp_in_group() * 16 + lane / 4;
#pragma unroll
            for (int i = 0; i < 32; ++i) {
                const int distance = first_row + i / 2 % 2 * 8 - (i / 4 * 8 + lane % 4 * 2 + i % 2);
                pair[i] = distance >= 0 ? p.pair_scale * expf(-rate * static_cast<float>(distance)) : 0.0f;
            }
#pragma unroll
            for (int half = 0; half < 2; ++half)
                read[half] = p.read_scale * expf(-rate * static_cast<float>(first_row + half * 8 + 1));
        }
    };

    // Powers of two of this thread's two rows of a chunk's tile.
    struct RowScale {
        float scale[2];
        float inverse[2];
    };

    __device__ static void multiply_rows_by(ChunkTile& tile, const float (&factor)[2]) {
#pragma unroll
        for (int i = 0; i < 32; ++i) tile[i] *= factor[i / 2 % 2];
    }

    // Divides every row by its scale. A row of small scores is not brought up by more than 2^24, so that the other part
    // of the output, which takes the same factor, cannot overflow.
    __device__ static RowScale scale_rows(ChunkTile& tile) {
        RowScale rows;
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            float largest = 0.0f;
#pragma unroll
            for (int i = half * 2; i < 32; i += 4) largest = fmaxf(largest, fmaxf(fabsf(tile[i]), fabsf(tile[i + 1])));
            const int exponent = scale_exponent(largest_of_row(largest), -24);
            rows.scale[half] = power_of_two(exponent);
            rows.inverse[half] = power_of_two(-exponent);
        }
        multiply_rows_by(tile, rows.inverse);
        return rows;
    }

    __device__ static void scale_columns(ChunkTile& tile, const float* scale) {
        const int lane = threadIdx.x % 32;
#pragma unroll
        for (int i = 0; i < 32; ++i) tile[i] *= scale[i / 4 * 8 + lane % 4 * 2 + i % 2];
    }

    __device__ static void write_output(const ChunkTile& values, char* tile) {
        const uint32_t base = ptx::shared_address(tile);
#pragma unroll
        for (int step = 0; step < 4; ++step) {
            uint32_t rounded[4];
#pragma unroll
            for (int pair = 0; pair < 4; ++pair)
                rounded[pair] = Element::pack(values[step * 8 + pair * 2], values[step * 8 + pair * 2 + 1]);
            ptx::stmatrix_x4(Layout::part_address(base, Layout::warp_in_group() * 16, step * 2), rounded);
        }
        ptx::fence_async_shared();
    }

    __device__ static void run(const SegmentedScanParams& p, Shared& shared) {
        const bool stores = threadIdx.x % Config::kOutputThreads == 0;
        const bool never = Layout::never(p);
        const int jobs = Layout::job_count(p);
        typename Layout::template Ring<kStages> ring;
        typename Layout::template Ring<Config::kStateBuffers> state_ring;
        typename Layout::template Ring<Config::kOutputBuffers> out_ring;

        Rows rows;
        ChunkTile scores;
        ptx::mbarrier_wait(shared.full[ring.index], ring.parity);
        load_rows(shared.stage[ring.index].a, rows);
        multiply_rows(rows, shared.stage[ring.index].b, scores);
        ptx::wgmma_wait<0>();
        ptx::touch(scores);
#pragma unroll 1
        for (int index = blockIdx.x; index < jobs; index += gridDim.x) {
            const Job job(p, index);
            const bool is_last_job = index + static_cast<int>(gridDim.x) >= jobs;
            const Weights weights(p, job);
#pragma unroll 1
            for (int chunk = job.first_chunk; chunk < job.end_chunk; ++chunk, state_ring.advance(), out_ring.advance()) {
                ChunkTile out;
                ptx::mbarrier_wait(shared.exchange.state_full[state_ring.index], state_ring.parity);
                multiply_rows(rows, shared.exchange.state[state_ring.index], out);

#pragma unroll
                for (int i = 0; i < 32; ++i) scores[i] *= weights.pair[i];
                RowScale score_scale;
                if constexpr (Element::kScaled) score_scale = scale_rows(scores);
                OperandA weighted[kTokenSteps];
#pragma unroll
                for (int i = 0; i < 32; i += 2) weighted[i / 8][i / 2 % 4] = Element::pack(scores[i], scores[i + 1]);

                ptx::wgmma_wait<0>();
                ptx::touch(out);
#pragma unroll
                for (int step = 0; step < kRowSteps; ++step) ptx::hold(rows[step], never);
                if constexpr (Element::kScaled) scale_columns(out, shared.exchange.state_scale[state_ring.index]);
                Layout::arrive_warp(shared.exchange.state_empty[state_ring.index]);
                multiply_rows_by(out, weights.read);
                if constexpr (Element::kScaled) multiply_rows_by(out, score_scale.inverse);
                add_values(weighted, shared.stage[ring.index].c, out);

                // Products are issued without conditions, and none is in flight at the end of the loop, or ptxas would
                // let each wait for the one before it. After the last chunk its own scores are computed again.
                const int stage = ring.index;
                if (chunk + 1 < job.end_chunk || !is_last_job) {
                    ring.advance();
                    ptx::mbarrier_wait(shared.full[ring.index], ring.parity);
                    load_rows(shared.stage[ring.index].a, rows);
                }
                multiply_rows(rows, shared.stage[ring.index].b, scores);
                ptx::wgmma_wait<1>();
                ptx::touch(out);
#pragma unroll
                for (int step = 0; step < kTokenSteps; ++step) ptx::hold(weighted[step], never);
                Layout::arrive_warp(shared.empty[stage]);

                // The buffer was read by the store of two chunks ago.
                if (stores) ptx::wait_stores_read<Config::kOutputBuffers - 1>();
                ptx::barrier_sync(kBarrier, Config::kOutputThreads);
                if constexpr (Element::kScaled) multiply_rows_by(out, score_scale.scale);
                write_output(out, shared.exchange.out[out_ring.index]);
                ptx::barrier_sync(kBarrier, Config::kOutputThreads);
                if (stores) {
                    ptx::store_box(p.out.map, shared.exchange.out[out_ring.index],
                                   {job.value_column(), chunk * kChunk, job.head, job.batch});
                    ptx::commit_stores();
                }
                ptx::wgmma_wait<0>();
                ptx::touch(scores);
            }
        }
        if (stores) ptx::wait_stores();
    }
};

} // namespace lattn::cuda
