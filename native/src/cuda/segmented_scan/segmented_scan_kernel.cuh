// The segmented scan on wgmma (sm_90a); segmented_scan_params.h has the formulas, docs/kernels/forward.md the reasons.
//
// Grid: one CTA per (batch, head, slice of 64 value columns), or one for each of its segments. Three roles:
//   loading warp   a, b, c of chunk after chunk into a ring of stages
//   state warps    U^T [E x A] in fp32 accumulators, S^T beside it. Per chunk: X^T = g^n S^T + U^T, rounded, to shared
//                  memory for the output; then U^T = g^m U^T + (w c)^T b with w c in two parts: U keeps fp32's accuracy
//   output warps   P = mask(g^(i-j)) a b^T, a X, out = g^(i+1) a X + P c; through shared memory to the output
// The state warps work one chunk ahead of the output warps. A CTA of the pass over sums has no output warps.
#pragma once

#include "ptx/dependent_launch.cuh"
#include "ptx/dynamic_shared.cuh"
#include "ptx/elect.cuh"
#include "ptx/ldmatrix.cuh"
#include "ptx/named_barrier.cuh"
#include "ptx/register_count.cuh"
#include "ptx/stmatrix.cuh"
#include "ptx/tensor_copy.cuh"
#include "ptx/wgmma.cuh"
#include "segmented_scan/element.cuh"
#include "segmented_scan/segmented_scan_config.h"
#include "segmented_scan/segmented_scan_params.h"
#include "tile/decay.cuh"

namespace lattn::cuda {

template <typename T, int kRowDim, bool kWithOutput>
struct SegmentedScan {
    using Config = SegmentedScanConfig<kRowDim>;
    using Element = ScanElement<T>;
    static constexpr int kChunk = Config::kChunk;
    static constexpr int kStages = Config::kStages;
    static constexpr int kRowTiles = Config::kRowTiles;
    static constexpr int kTileBytes = static_cast<int>(Config::kTileBytes);
    static constexpr int kThreads = kWithOutput ? Config::kScanThreads : Config::kSumThreads;
    static constexpr int kRowSteps = kRowDim / 16;   // k steps of a product over the rows of X
    static constexpr int kTokenSteps = kChunk / 16;  // k steps of a product over a chunk's tokens
    static constexpr int kStateValues = kRowDim / 2; // of a state, per thread
    static constexpr int kWarpsPerGroup = 4;
    static constexpr int kGroups = kWithOutput ? 2 : 1; // that read a stage
    static constexpr int kOutputBarrier = 1;            // named barrier of the output warps

    using ByRow = ptx::Wgmma<T, ptx::BOrder::kKContiguous>;
    using ByColumn = ptx::Wgmma<T, ptx::BOrder::kNContiguous>;
    using ChunkTile = float[32]; // 64 x 64 in a warpgroup's accumulators
    using OperandA = uint32_t[4];

    // U^T in the accumulators of products of kPartCols columns.
    struct State {
        static constexpr int kPartCols = kRowDim % 128 == 0 ? 128 : 64;
        static constexpr int kParts = kRowDim / kPartCols;
        static constexpr int kPartValues = kPartCols / 2;
        float part[kParts][kPartValues];

        __device__ float& operator[](int i) { return part[i / kPartValues][i % kPartValues]; }
        __device__ float operator[](int i) const { return part[i / kPartValues][i % kPartValues]; }
    };

    // S^T, in registers or in the workspace.
    struct Before {
        float values[Config::kBeforeInRegisters ? kStateValues : 1];
        float* workspace; // NULL: zeros

        __device__ float operator[](int i) const {
            if constexpr (Config::kBeforeInRegisters)
                return values[i];
            else
                return workspace != nullptr ? workspace[i * Config::kStateThreads] : 0.0f;
        }

        __device__ void set(int i, float value) {
            if constexpr (Config::kBeforeInRegisters)
                values[i] = value;
            else
                workspace[i * Config::kStateThreads] = value;
        }
    };

    struct Stage {
        char a[kRowTiles * kTileBytes];
        char b[kRowTiles * kTileBytes];
        char c[kTileBytes];
    };

    struct Shared {
        Stage stage[kStages];
        char state[Config::kStateBuffers][kRowTiles * kTileBytes]; // X^T [64 value columns][A]
        char out[Config::kOutputBuffers][kTileBytes];              // [tokens][64 value columns]
        ptx::Mbarrier full[kStages];
        ptx::Mbarrier empty[kStages];
        ptx::Mbarrier state_full[Config::kStateBuffers];
        ptx::Mbarrier state_empty[Config::kStateBuffers];
        float power[kChunk + 1];                                      // g^n
        float state_scale[Config::kStateBuffers][Config::kValueCols]; // of the rows of X^T, if they are scaled
    };
    static_assert(sizeof(Shared) + 1024 <= Config::kSharedBytes);

    // What a CTA works on: chunks [first_chunk, end_chunk) of one head's value columns.
    struct Job {
        int batch;
        int head;
        int slice;
        int first_chunk;
        int end_chunk;

        __device__ explicit Job(const SegmentedScanParams& p) {
            const int sequences = p.batch * p.heads * p.value_slices;
            const int index = static_cast<int>(blockIdx.x) % sequences;
            slice = index % p.value_slices;
            head = index / p.value_slices % p.heads;
            batch = index / p.value_slices / p.heads;
            const int chunks = static_cast<int>((p.tokens + kChunk - 1) / kChunk);
            first_chunk = 0;
            end_chunk = chunks;
            if (p.split) {
                // The last segments first: their b and c were read last by the pass over sums.
                const int round = static_cast<int>(blockIdx.x) / sequences;
                const int segment = kWithOutput ? p.segments - 1 - round : round;
                first_chunk = segment * Config::kChunksPerSegment;
                end_chunk = min(first_chunk + Config::kChunksPerSegment, chunks);
            }
        }

        __device__ int segment() const { return first_chunk / Config::kChunksPerSegment; }
        __device__ int value_column() const { return slice * Config::kValueCols; }
    };

    // Walks the blocks of states along with the chunks.
    struct Blocks {
        int64_t index;  // of the block that begins next
        int64_t chunks; // of a block
        int64_t until;  // chunks before it begins

        __device__ Blocks(const SegmentedScanParams& p, int first_chunk) : chunks(p.block_size / kChunk) {
            index = (first_chunk + chunks - 1) / chunks;
            until = index * chunks - first_chunk;
        }

        __device__ bool begins_here() const { return until == 0; }

        __device__ void advance() {
            if (until == 0) {
                ++index;
                until = chunks;
            }
            --until;
        }
    };

    // Tokens of a chunk; only the last one of a sequence may have fewer than kChunk.
    __device__ static int tokens_of(const SegmentedScanParams& p, int chunk) {
        return static_cast<int>(min(int64_t{kChunk}, p.tokens - int64_t{chunk} * kChunk));
    }

    // Address of 8 elements in tiles of 64 x 64: row, and column / 8.
    __device__ static uint32_t at(uint32_t tiles, int row, int column8) {
        return tiles + column8 / 8 * kTileBytes + row * 128 + ((column8 ^ row) % 8) * 16;
    }

    // The matrix row whose address this lane gives to ldmatrix and stmatrix for a 16 x 16 part of tiles, operand a's
    // order: rows from `row`, columns from 8 * column8.
    __device__ static uint32_t part_address(uint32_t tiles, int row, int column8) {
        const int lane = threadIdx.x % 32;
        return at(tiles, row + lane % 16, column8 + lane / 16);
    }

    // The same for the transposed part: rows are k.
    __device__ static uint32_t transposed_part_address(uint32_t tiles, int row, int column8) {
        const int lane = threadIdx.x % 32;
        return at(tiles, row + lane % 8 + lane / 16 * 8, column8 + lane / 8 % 2);
    }

    __device__ static int warp_in_group() { return threadIdx.x / 32 % kWarpsPerGroup; }

    // After a whole warp has finished with what the barrier guards.
    __device__ static void arrive_warp(ptx::Mbarrier& barrier) {
        __syncwarp();
        if (threadIdx.x % 32 == 0) ptx::mbarrier_arrive(barrier);
    }

    // Place in a ring of kCount buffers, and the parity of its phase.
    template <int kCount>
    struct Ring {
        int index = 0;
        uint32_t parity = 0;

        __device__ void advance() {
            if (++index == kCount) {
                index = 0;
                parity ^= 1;
            }
        }
    };

    // ---- loading warp

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
              batch(tensor.repeats_batch ? 0 : job.batch) {
            ptx::prefetch_map(map);
        }

        template <int kTiles>
        __device__ void load(char (&tiles)[kTiles], int first_token, ptx::Mbarrier& full) const {
#pragma unroll
            for (int tile = 0; tile < kTiles / kTileBytes; ++tile)
                ptx::load_box(tiles + tile * kTileBytes, map, full,
                              {first_column + tile * 64, first_token, head, batch});
        }
    };

    __device__ static void run_loads(const SegmentedScanParams& p, Shared& shared) {
        const Job job(p);
        const Source a(kWithOutput ? p.a : p.b, job, 0);
        const Source b(p.b, job, 0);
        const Source c(p.c, job, job.value_column());
        Ring<kStages> ring;
#pragma unroll 1
        for (int chunk = job.first_chunk; chunk < job.end_chunk; ++chunk, ring.advance()) {
            Stage& stage = shared.stage[ring.index];
            ptx::Mbarrier& full = shared.full[ring.index];
            ptx::mbarrier_wait(shared.empty[ring.index], ring.parity ^ 1);
            if (ptx::elect_one()) {
                ptx::mbarrier_arrive_expect_bytes(full, ((kWithOutput ? 2 : 1) * kRowTiles + 1) * kTileBytes);
                b.load(stage.b, chunk * kChunk, full);
                if (kWithOutput) a.load(stage.a, chunk * kChunk, full);
                c.load(stage.c, chunk * kChunk, full);
            }
            __syncwarp();
        }
    }

    // ---- state warps

    // Calls visit(i, element) for every value i of a state that this thread holds.
    template <typename Visit>
    __device__ static void for_each_value(const SegmentedScanParams& p, const StateView& view, int64_t block,
                                          const Job& job, Visit visit) {
        const int lane = threadIdx.x % 32;
        const int first_row = lane % 4 * 2;
        const int column = job.value_column() + warp_in_group() * 16 + lane / 4;
        float* element = view.data + job.batch * view.stride_b + job.head * view.stride_h + block * view.stride_block +
                         first_row * view.stride_row + column * view.stride_column;
#pragma unroll
        for (int tile = 0; tile < kRowDim / 8; ++tile) {
#pragma unroll
            for (int half = 0; half < 2; ++half) {
#pragma unroll
                for (int pair = 0; pair < 2; ++pair) {
                    if (tile * 8 + first_row + pair < p.row_dim && column + half * 8 < p.value_dim)
                        visit(tile * 4 + half * 2 + pair,
                              element[pair * view.stride_row + half * 8 * view.stride_column]);
                }
            }
            element += 8 * view.stride_row;
        }
    }

    // g^n S + U
    __device__ static float combined(float decay, float before, float sum) {
        return fmaf(decay, before, sum);
    }

    __device__ static void write_state(const SegmentedScanParams& p, const StateView& view, int64_t block,
                                       const Job& job, float decay, const Before& before, const State& sum) {
        for_each_value(p, view, block, job,
                       [&](int i, float& element) { element = combined(decay, before[i], sum[i]); });
    }

    // Where this thread's values of S of a segment lie in the workspace. Without a split all segments share one place.
    __device__ static float* workspace_state(const SegmentedScanParams& p, const Job& job, int segment) {
        const int64_t sequence = (int64_t{job.batch} * p.heads + job.head) * p.value_slices + job.slice;
        const int entry = p.split ? segment - (Config::kBeforeInRegisters ? 1 : 0) : 0;
        return p.workspace + (sequence * p.state_entries + entry) * Config::kStateFloats + threadIdx.x;
    }

    __device__ static Before state_before(const SegmentedScanParams& p, const Job& job) {
        Before before = {};
        const bool combined_before = p.split && job.segment() > 0;
        if constexpr (Config::kBeforeInRegisters) {
            if (combined_before) {
                const float* values = workspace_state(p, job, job.segment());
#pragma unroll
                for (int i = 0; i < kStateValues; ++i) before.values[i] = values[i * Config::kStateThreads];
            }
        } else if (combined_before || p.initial.data != nullptr) {
            before.workspace = workspace_state(p, job, job.segment());
        }
        if (!combined_before && p.initial.data != nullptr) {
            if constexpr (!Config::kBeforeInRegisters) {
                // What lies outside the state is zero too.
#pragma unroll
                for (int i = 0; i < kStateValues; ++i) before.set(i, 0.0f);
            }
            for_each_value(p, p.initial, 0, job, [&](int i, float element) { before.set(i, element); });
        }
        return before;
    }

    // S <- g^L S + U, U <- 0
    __device__ static void end_segment(const SegmentedScanParams& p, const Job& job, float decay, Before& before,
                                       State& sum) {
        const Before old = before;
        if constexpr (!Config::kBeforeInRegisters) before.workspace = workspace_state(p, job, 0);
#pragma unroll
        for (int i = 0; i < kStateValues; ++i) {
            before.set(i, combined(decay, old[i], sum[i]));
            sum[i] = 0.0f;
        }
    }

    // X^T = g^n S^T + U^T, rounded, to shared memory.
    __device__ static void publish_state(Shared& shared, int buffer, float decay, const Before& before,
                                         const State& sum) {
        const uint32_t tiles = ptx::shared_address(shared.state[buffer]);
        const int row = warp_in_group() * 16;
        float inverse[2] = {1.0f, 1.0f}; // of the scale of this thread's rows
        if constexpr (Element::kScaled) {
            const int lane = threadIdx.x % 32;
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                float largest = 0.0f;
#pragma unroll
                for (int i = half * 2; i < kStateValues; i += 4) {
                    largest = fmaxf(largest, fabsf(combined(decay, before[i], sum[i])));
                    largest = fmaxf(largest, fabsf(combined(decay, before[i + 1], sum[i + 1])));
                }
                const int exponent = scale_exponent(largest_of_row(largest), -113);
                inverse[half] = power_of_two(-exponent);
                if (lane % 4 == 0) shared.state_scale[buffer][row + half * 8 + lane / 4] = power_of_two(exponent);
            }
        }
#pragma unroll
        for (int step = 0; step < kRowSteps; ++step) {
            uint32_t rounded[4];
#pragma unroll
            for (int pair = 0; pair < 4; ++pair) {
                const int i = step * 8 + pair * 2;
                float x = combined(decay, before[i], sum[i]);
                float y = combined(decay, before[i + 1], sum[i + 1]);
                if constexpr (Element::kScaled) {
                    x *= inverse[pair % 2];
                    y *= inverse[pair % 2];
                }
                rounded[pair] = Element::pack(x, y);
            }
            ptx::stmatrix_x4(part_address(tiles, row, step * 2), rounded);
        }
        ptx::fence_async_shared();
    }

    // (w c)^T of a chunk in two parts, as operands a of the state update.
    struct WeightedValues {
        OperandA high[kTokenSteps];
        OperandA low[kTokenSteps];
    };

    __device__ static void weigh_values(const char* c, const float* power, int tokens, WeightedValues& weighted) {
        const uint32_t base = ptx::shared_address(c);
        const int lane = threadIdx.x % 32;
#pragma unroll
        for (int step = 0; step < kTokenSteps; ++step) {
            uint32_t value[4];
            ptx::ldmatrix_x4_transposed(value, transposed_part_address(base, step * 16, warp_in_group() * 2));
#pragma unroll
            for (int u = 0; u < 2; ++u) {
                // Beyond the chunk's tokens b and c are zero; any finite weight will do.
                const int last = tokens - 1 - (step * 16 + u * 8 + lane % 4 * 2);
                const float weight = power[max(last, 0)];
                const float next_weight = power[max(last - 1, 0)];
#pragma unroll
                for (int half = 0; half < 2; ++half) {
                    const float2 exact = Element::unpack(value[u * 2 + half]);
                    const float x = exact.x * weight;
                    const float y = exact.y * next_weight;
                    const uint32_t rounded = Element::pack(x, y);
                    const float2 kept = Element::unpack(rounded);
                    weighted.high[step][u * 2 + half] = rounded;
                    weighted.low[step][u * 2 + half] = Element::pack(x - kept.x, y - kept.y);
                }
            }
        }
    }

    // U^T += (w c)^T b, not waited for.
    __device__ static void add_chunk(const char* b, const WeightedValues& weighted, State& sum) {
        const uint32_t base = ptx::shared_address(b);
        ptx::wgmma_fence();
#pragma unroll
        for (int step = 0; step < kTokenSteps; ++step) {
#pragma unroll
            for (int part = 0; part < State::kParts; ++part) {
                const uint32_t tiles = base + part * (State::kPartCols / 64) * kTileBytes;
                const uint64_t rows = ptx::wgmma_operand(tiles + step * 2048, kTileBytes);
                ByColumn::multiply(sum.part[part], weighted.high[step], rows, true);
                ByColumn::multiply(sum.part[part], weighted.low[step], rows, true);
            }
        }
        ptx::wgmma_commit();
    }

    __device__ static void run_state(const SegmentedScanParams& p, Shared& shared) {
        const Job job(p);
        const float rate = p.decay_rate[job.head];
        State sum = {};
        // The passes before this one write the states before segments; everything else may start without them.
        if (kWithOutput && p.split) ptx::wait_for_prior_kernel();
        Before before = state_before(p, job);

        Ring<kStages> ring;
        Ring<Config::kStateBuffers> state_ring;
        Blocks blocks(p, job.first_chunk);
        WeightedValues weighted;
        ptx::mbarrier_wait(shared.full[0], 0);
        weigh_values(shared.stage[0].c, shared.power, tokens_of(p, job.first_chunk), weighted);
        for (int chunk = job.first_chunk; chunk < job.end_chunk; ++chunk, state_ring.advance()) {
            const int in_segment = chunk % Config::kChunksPerSegment * kChunk; // tokens before the chunk
            if (in_segment == 0 && chunk > job.first_chunk)
                end_segment(p, job, expf(-rate * static_cast<float>(kSegmentTokens)), before, sum);
            if (kWithOutput) {
                const float decay = expf(-rate * static_cast<float>(in_segment));
                if (p.block_states.data != nullptr && blocks.begins_here())
                    write_state(p, p.block_states, blocks.index, job, decay, before, sum);
                blocks.advance();
                ptx::mbarrier_wait(shared.state_empty[state_ring.index], state_ring.parity ^ 1);
                publish_state(shared, state_ring.index, decay, before, sum);
                arrive_warp(shared.state_full[state_ring.index]);
            }

            const float decay = shared.power[tokens_of(p, chunk)];
#pragma unroll
            for (int i = 0; i < kStateValues; ++i) sum[i] *= decay;
            const int stage = ring.index;
            add_chunk(shared.stage[stage].b, weighted, sum);

            // The next chunk's values are weighed while the products run.
            ring.advance();
            WeightedValues next = weighted;
            if (chunk + 1 < job.end_chunk) {
                ptx::mbarrier_wait(shared.full[ring.index], ring.parity);
                weigh_values(shared.stage[ring.index].c, shared.power, tokens_of(p, chunk + 1), next);
            }
            ptx::wgmma_wait<0>();
#pragma unroll
            for (int part = 0; part < State::kParts; ++part) ptx::touch(sum.part[part]);
            arrive_warp(shared.empty[stage]);
            weighted = next;
        }

        if (!kWithOutput) {
            float* values = workspace_state(p, job, job.segment() + 1);
#pragma unroll
            for (int i = 0; i < kStateValues; ++i) values[i * Config::kStateThreads] = sum[i];
        } else if (p.final.data != nullptr && int64_t{job.end_chunk} * kChunk >= p.tokens) {
            const int64_t segment_begin = int64_t{(job.end_chunk - 1) / Config::kChunksPerSegment} * kSegmentTokens;
            write_state(p, p.final, 0, job, expf(-rate * static_cast<float>(p.tokens - segment_begin)), before, sum);
        }
    }

    // ---- output warps

    __device__ static void load_rows(const char* a, OperandA (&rows)[kRowSteps]) {
        const uint32_t base = ptx::shared_address(a);
#pragma unroll
        for (int step = 0; step < kRowSteps; ++step)
            ptx::ldmatrix_x4(rows[step], part_address(base, warp_in_group() * 16, step * 2));
    }

    // product = rows x^T for tiles x of 64 rows, not waited for.
    __device__ static void multiply_rows(const OperandA (&rows)[kRowSteps], const char* x, ChunkTile& product) {
        const uint32_t base = ptx::shared_address(x);
#pragma unroll
        for (int step = 0; step < kRowSteps; ++step)
            ByRow::multiply(product, rows[step],
                            ptx::wgmma_operand(base + step / 4 * kTileBytes + step % 4 * 32, kTileBytes), step > 0);
        ptx::wgmma_commit();
    }

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
            ptx::stmatrix_x4(part_address(base, warp_in_group() * 16, step * 2), rounded);
        }
        ptx::fence_async_shared();
    }

    __device__ static void run_output(const SegmentedScanParams& p, Shared& shared) {
        const Job job(p);
        const int lane = threadIdx.x % 32;
        const int first_row = warp_in_group() * 16 + lane / 4;
        const bool stores = threadIdx.x % Config::kOutputThreads == 0;

        // The weights of a thread's elements are the same in every chunk.
        ChunkTile pair_weight;
#pragma unroll
        for (int i = 0; i < 32; ++i) {
            const int row = first_row + i / 2 % 2 * 8;
            const int column = i / 4 * 8 + lane % 4 * 2 + i % 2;
            pair_weight[i] = column <= row ? p.pair_scale * shared.power[max(row - column, 0)] : 0.0f;
        }
        const float read_weight[2] = {p.read_scale * shared.power[first_row + 1],
                                      p.read_scale * shared.power[first_row + 9]};

        Ring<kStages> ring;
        Ring<Config::kStateBuffers> state_ring;
        Ring<Config::kOutputBuffers> out_ring;
        for (int chunk = job.first_chunk; chunk < job.end_chunk;
             ++chunk, ring.advance(), state_ring.advance(), out_ring.advance()) {
            const Stage& stage = shared.stage[ring.index];
            ptx::mbarrier_wait(shared.full[ring.index], ring.parity);
            OperandA rows[kRowSteps];
            load_rows(stage.a, rows);
            ChunkTile scores;
            ptx::wgmma_fence();
            multiply_rows(rows, stage.b, scores);

            ptx::mbarrier_wait(shared.state_full[state_ring.index], state_ring.parity);
            ChunkTile out;
            ptx::wgmma_fence();
            multiply_rows(rows, shared.state[state_ring.index], out);

            ptx::wgmma_wait<1>();
            ptx::touch(scores);
#pragma unroll
            for (int i = 0; i < 32; ++i) scores[i] *= pair_weight[i];
            RowScale score_scale;
            if constexpr (Element::kScaled) score_scale = scale_rows(scores);
            OperandA weighted[kTokenSteps];
#pragma unroll
            for (int i = 0; i < 32; i += 2) weighted[i / 8][i / 2 % 4] = Element::pack(scores[i], scores[i + 1]);

            ptx::wgmma_wait<0>();
            ptx::touch(out);
            if constexpr (Element::kScaled) scale_columns(out, shared.state_scale[state_ring.index]);
            arrive_warp(shared.state_empty[state_ring.index]);
            multiply_rows_by(out, read_weight);
            if constexpr (Element::kScaled) multiply_rows_by(out, score_scale.inverse);
            ptx::wgmma_fence();
            const uint32_t values = ptx::shared_address(stage.c);
#pragma unroll
            for (int step = 0; step < kTokenSteps; ++step)
                ByColumn::multiply(out, weighted[step], ptx::wgmma_operand(values + step * 2048, kTileBytes), true);
            ptx::wgmma_commit();

            // The buffer was read by the store of two chunks ago.
            if (stores) ptx::wait_stores_read<Config::kOutputBuffers - 1>();
            ptx::barrier_sync(kOutputBarrier, Config::kOutputThreads);
            ptx::wgmma_wait<0>();
            ptx::touch(out);
            arrive_warp(shared.empty[ring.index]);
            if constexpr (Element::kScaled) multiply_rows_by(out, score_scale.scale);
            write_output(out, shared.out[out_ring.index]);
            ptx::barrier_sync(kOutputBarrier, Config::kOutputThreads);
            if (stores) {
                ptx::store_box(p.out.map, shared.out[out_ring.index],
                               {job.value_column(), chunk * kChunk, job.head, job.batch});
                ptx::commit_stores();
            }
        }
        if (stores) ptx::wait_stores();
    }

    __device__ static void run(const SegmentedScanParams& p) {
        LATTN_DYNAMIC_SHARED(shared_memory);
        const uint32_t padding = (1024 - ptx::shared_address(shared_memory) % 1024) % 1024;
        Shared& shared = *reinterpret_cast<Shared*>(reinterpret_cast<char*>(shared_memory) + padding);
        if (threadIdx.x == 0) {
            for (int i = 0; i < kStages; ++i) {
                ptx::mbarrier_init(shared.full[i], 1);
                ptx::mbarrier_init(shared.empty[i], kGroups * kWarpsPerGroup);
            }
            for (int i = 0; i < Config::kStateBuffers; ++i) {
                ptx::mbarrier_init(shared.state_full[i], kWarpsPerGroup);
                ptx::mbarrier_init(shared.state_empty[i], kWarpsPerGroup);
            }
            ptx::fence_mbarrier_init();
        }
        if (!kWithOutput) ptx::let_next_kernel_start();
        fill_powers<kThreads>(shared.power, kChunk + 1, p.decay_rate[Job(p).head]);
        __syncthreads();

        const int warp = threadIdx.x / 32;
        if (warp < kWarpsPerGroup) {
            if constexpr (kWithOutput) ptx::take_registers<Config::kStateRegisters>();
            run_state(p, shared);
        } else if (kWithOutput && warp < 2 * kWarpsPerGroup) {
            if constexpr (kWithOutput) ptx::take_registers<Config::kOutputRegisters>();
            run_output(p, shared);
        } else {
            if constexpr (kWithOutput) ptx::give_registers<Config::kLoadRegisters>();
            if (warp % kWarpsPerGroup == 0) run_loads(p, shared);
        }
    }
};

// S of every segment but the first from the sums U of those before it, in place: S <- g^L S + U. One thread per value
// of a state; grid: kStateFloats / kCombineThreads blocks for each (batch, head, value slice).
template <int kRowDim>
__device__ void combine_segments(const SegmentedScanParams& p) {
    using Config = SegmentedScanConfig<kRowDim>;
    constexpr int kBlocks = Config::kStateFloats / Config::kCombineThreads;
    const int sequence = static_cast<int>(blockIdx.x) / kBlocks;
    const int index = static_cast<int>(blockIdx.x) % kBlocks * Config::kCombineThreads + threadIdx.x;
    const int head = sequence / p.value_slices % p.heads;

    // The element of the state that value i of a thread is.
    const int thread = index % Config::kStateThreads;
    const int i = index / Config::kStateThreads;
    const int lane = thread % 32;
    const int row = i / 4 * 8 + lane % 4 * 2 + i % 2;
    const int column = sequence % p.value_slices * Config::kValueCols + thread / 32 * 16 + lane / 4 + i / 2 % 2 * 8;

    ptx::let_next_kernel_start();
    float before = 0.0f;
    if (p.initial.data != nullptr && row < p.row_dim && column < p.value_dim)
        before = p.initial.data[sequence / p.value_slices / p.heads * p.initial.stride_b + head * p.initial.stride_h +
                                row * p.initial.stride_row + column * p.initial.stride_column];
    const float decay = expf(-p.decay_rate[head] * static_cast<float>(kSegmentTokens));
    ptx::wait_for_prior_kernel();                               // for the sums
    const int first_entry = Config::kBeforeInRegisters ? 0 : 1; // that of the second segment
    float* state = p.workspace + (int64_t{sequence} * p.state_entries + first_entry) * Config::kStateFloats + index;
#pragma unroll 8
    for (int segment = 1; segment < p.segments; ++segment, state += Config::kStateFloats) {
        before = fmaf(decay, before, *state);
        *state = before;
    }
}

} // namespace lattn::cuda

#define LATTN_SEGMENTED_SCAN_KERNELS(suffix, type, row_dim)                                                  \
    extern "C" __global__ void __launch_bounds__(lattn::cuda::SegmentedScanConfig<row_dim>::kScanThreads, 1) \
        lattn_segmented_scan_##suffix(const __grid_constant__ lattn::cuda::SegmentedScanParams params) {     \
        lattn::cuda::SegmentedScan<type, row_dim, true>::run(params);                                        \
    }                                                                                                        \
    extern "C" __global__ void __launch_bounds__(lattn::cuda::SegmentedScanConfig<row_dim>::kSumThreads, 1)  \
        lattn_segment_sums_##suffix(const __grid_constant__ lattn::cuda::SegmentedScanParams params) {       \
        lattn::cuda::SegmentedScan<type, row_dim, false>::run(params);                                       \
    }                                                                                                        \
    extern "C" __global__ void __launch_bounds__(lattn::cuda::SegmentedScanConfig<row_dim>::kCombineThreads) \
        lattn_combine_segments_##suffix(const __grid_constant__ lattn::cuda::SegmentedScanParams params) {   \
        lattn::cuda::combine_segments<row_dim>(params);                                                      \
    }
