// Decoding: Td tokens of a row, one after the other: S <- g S + k (x) v, o = scale * S^T q. The state is read once and
// written once, whatever Td is, and lives in registers in between.
//
// Grid: one CTA per (row, head, slice of value columns); a slice is 256 bytes of a row of the state. A CTA has a warp
// for every 16 rows: a thread owns 16 bytes of columns of 8 rows, 16 threads lie side by side in a slice, and a load of
// a warp is 4 whole lines. All loads of a thread are under way before the first is used, and none of them waits for
// shared memory: q and k of a thread's 8 rows are words as well.
//
// Where the kernel starts during the one before it, its first CTAs read their slots early, as a hint of which states
// will be wanted, and have these brought into L2. After the wait the states are loaded from there while the slots are
// read again; only where a slot has changed is another state loaded. With one token, CTAs bring the states of those a
// wave after them into L2 as well.
//
// The order of every sum is fixed: 8 rows in a thread, 2 threads of a warp by shuffles, the warps in shared memory. It
// depends on D alone, so a row's result is bitwise the same in any batch, and a token's whatever tokens come with it.
#pragma once

#include <cstdint>

#include "decode/decode_params.h"
#include "ptx/dependent_launch.cuh"
#include "ptx/opaque.cuh"
#include "ptx/streaming.cuh"
#include "tile/packed.cuh"

namespace lattn::cuda {

// The integer at `index` of an array of int32 or int64.
__device__ __forceinline__ int64_t integer_at(const void* data, int32_t is_int64, int64_t index) {
    return is_int64 ? ptx::load_past_l1(static_cast<const int64_t*>(data) + index)
                    : int64_t{ptx::load_past_l1(static_cast<const int32_t*>(data) + index)};
}

// T: of q, k, v and output. kMaxTokens: 1, for a token whose output and state are both wanted, or what a call may have.
template <typename T, typename StateT, int kMaxTokens, int kMaxRows>
struct Decode {
    static constexpr int kRows = kDecodeThreadRows;
    static constexpr int kColumns = kDecodeThreadBytes / sizeof(StateT);
    static constexpr int kSlice = decode_slice(sizeof(StateT));
    static constexpr int kWarps = decode_warps(kMaxRows);
    static constexpr int kThreads = 32 * kWarps;
    static constexpr bool kOneToken = kMaxTokens == 1;
    // Of one token: bounds the registers, so that the words under way are many times what the memory's latency asks
    // for.
    static constexpr int kBlocksPerSm = kOneToken ? decode_resident_threads(sizeof(StateT)) / kThreads : 1;
    // Of several tokens: whether the next one's words come while one is worked on. 512 threads of 8 rows and 8 columns
    // have no registers for that.
    static constexpr bool kLoadsAhead = kMaxRows <= 128 || sizeof(T) == 2 || sizeof(StateT) == 4;
    // Tokens whose sums are in shared memory together.
    static constexpr int kSumTokens = 4;

    struct Shared {
        float sums[kOneToken ? 1 : kSumTokens][kWarps][kSlice];
    };

    // A thread's part of a token.
    struct Token {
        Packed<T, kRows> q, k;
        Packed<T, kColumns> v;
    };

    // A thread's part of a state, as it is in memory.
    using Row = Packed<StateT, kColumns>;
    struct Words {
        Row row[kRows];
    };

    // What a thread works on, and where it is as far as that is known before any memory is read: offsets, as pointers
    // that went through opaque() would no longer be known to be of global memory.
    struct Part {
        int64_t batch;
        int head;
        int slice_column; // the first of the CTA
        bool is_inside;   // of the state; D and E are multiples of 8
        int64_t q, k, v;  // the thread's first element of the first token, counted from the tensor's data
        int64_t in, out;  // its first element in slot 0, counted from the states' data

        __device__ Part(const DecodeParams& p, unsigned block) {
            const unsigned slices = static_cast<unsigned>(p.slices), heads = static_cast<unsigned>(p.heads);
            slice_column = static_cast<int>(block % slices) * kSlice;
            head = static_cast<int>(block / slices % heads);
            batch = block / slices / heads;
            const int row = static_cast<int>(threadIdx.x) / kDecodeColumnThreads * kRows;
            const int column = slice_column + static_cast<int>(threadIdx.x) % kDecodeColumnThreads * kColumns;
            is_inside = row < p.row_dim && column < p.value_dim;
            const int head_qk = static_cast<int>(static_cast<unsigned>(head) / static_cast<unsigned>(p.group));
            q = batch * p.q.stride_b + head_qk * p.q.stride_h + row;
            k = batch * p.k.stride_b + head_qk * p.k.stride_h + row;
            v = batch * p.v.stride_b + head * p.v.stride_h + column;
            in = offset_of(p.state_in, head, row, column);
            out = offset_of(p.state_out, head, row, column);
        }

        __device__ static int64_t offset_of(const DecodeState& state, int head, int row, int column) {
            return head * state.stride_h + row * state.stride_d + column * state.stride_e;
        }
    };

    template <int kCount>
    __device__ static void load(const DecodeTensor& tensor, int64_t offset, Packed<T, kCount>& to) {
        const T* from = static_cast<const T*>(tensor.data) + offset;
        if (tensor.vector_aligned)
            to = *reinterpret_cast<const Packed<T, kCount>*>(from);
        else
            to = Packed<T, kCount>::load_strided(from, 1);
    }

    __device__ static void load_token(const DecodeParams& p, const Part& part, int token, bool with_output, Token& to) {
        if (!part.is_inside) return;
        if (with_output) load(p.q, part.q + token * p.q.stride_n, to.q);
        load(p.k, part.k + token * p.k.stride_n, to.k);
        load(p.v, part.v + token * p.v.stride_n, to.v);
    }

    // The thread's first element, counted from the states' data.
    __device__ static int64_t in_slot(const DecodeParams& p, const Part& part, int64_t slot) {
        return slot * p.state_in.stride_slot + part.in;
    }

    // Where a thread will find its part of a state, before the wait for what may still change that.
    struct Guess {
        int64_t slot = -1; // none
        int64_t offset = 0;

        Guess() = default;
        __device__ Guess(const DecodeParams& p, const Part& part)
            : slot(part.is_inside ? slot_of(p, part.batch) : -1), offset(ptx::opaque(in_slot(p, part, slot))) {}
    };

    // A hint: what is loaded later is what is in memory then.
    __device__ static void prefetch_state(const DecodeParams& p, const Guess& guess) {
        if (guess.slot < 0) return;
        const StateT* from = static_cast<const StateT*>(p.state_in.data) + guess.offset;
#pragma unroll
        for (int d = 0; d < kRows; ++d) ptx::prefetch_l2(from + d * p.state_in.stride_d);
    }

    __device__ static void load_state(const DecodeParams& p, int64_t offset, Words& words) {
        const DecodeState& state = p.state_in;
        const StateT* from = static_cast<const StateT*>(state.data) + offset;
        if (p.state_vectorized) {
#pragma unroll
            for (int d = 0; d < kRows; ++d)
                words.row[d] = ptx::load_streaming(reinterpret_cast<const Row*>(from + d * state.stride_d));
        } else {
#pragma unroll
            for (int d = 0; d < kRows; ++d) words.row[d] = Row::load_strided(from + d * state.stride_d, state.stride_e);
        }
    }

    __device__ static void store_state(const DecodeParams& p, const Part& part, int64_t slot, const Words& words) {
        const DecodeState& state = p.state_out;
        StateT* to = static_cast<StateT*>(state.data) + slot * state.stride_slot + part.out;
        if (p.state_vectorized) {
#pragma unroll
            for (int d = 0; d < kRows; ++d) {
                Row* row = reinterpret_cast<Row*>(to + d * state.stride_d);
                // As measured: docs/kernels/decode.md.
                if (kOneToken)
                    ptx::store_streaming(row, words.row[d]);
                else
                    ptx::store_evict_first(row, words.row[d]);
            }
        } else {
#pragma unroll
            for (int d = 0; d < kRows; ++d) words.row[d].store_strided(to + d * state.stride_d, state.stride_e);
        }
    }

    __device__ static void unpack(const Row& packed, float (&row)[kColumns]) {
#pragma unroll
        for (int e = 0; e < kColumns; ++e) row[e] = packed[e];
    }

    // Row d of S <- g S + k (x) v; adds its part of S^T q to `sum`. Fused as written, so in every instance alike.
    __device__ static void advance(const Token& token, int d, float decay, float (&row)[kColumns],
                                   float (&sum)[kColumns]) {
        const float k = token.k[d];
        const float q = token.q[d];
#pragma unroll
        for (int e = 0; e < kColumns; ++e) {
            row[e] = fmaf(k, token.v[e], decay * row[e]);
            sum[e] = fmaf(q, row[e], sum[e]);
        }
    }

    // Over the rows of a warp, for its first row of threads to keep.
    __device__ static void keep_sums(const float (&sum)[kColumns], float (&sums)[kWarps][kSlice]) {
        float total[kColumns];
#pragma unroll
        for (int e = 0; e < kColumns; ++e) {
            total[e] = sum[e];
#pragma unroll
            for (int distance = kDecodeColumnThreads; distance < 32; distance *= 2)
                total[e] += __shfl_xor_sync(0xffffffffu, total[e], distance);
        }
        const int lane = static_cast<int>(threadIdx.x) % 32;
        if (lane >= kDecodeColumnThreads) return;
#pragma unroll
        for (int e = 0; e < kColumns; ++e) sums[threadIdx.x / 32][lane * kColumns + e] = total[e];
    }

    // The output of tokens [begin, end): of those before `tokens` from their sums, zeros for the rest.
    __device__ static void store_output(const DecodeParams& p, const Part& part, int begin, int end, int tokens,
                                        const Shared& shared) {
#pragma unroll 1
        for (int i = threadIdx.x; i < (end - begin) * kSlice; i += kThreads) {
            const int token = begin + i / kSlice;
            const int column = i % kSlice;
            if (part.slice_column + column >= p.value_dim) continue;
            float total = 0.0f;
            if (token < tokens) {
#pragma unroll
                for (int warp = 0; warp < kWarps; ++warp) total += shared.sums[token - begin][warp][column];
            }
            T* output = static_cast<T*>(p.output.data) + part.batch * p.output.stride_b +
                        part.head * p.output.stride_h + token * p.output.stride_n;
            output[part.slice_column + column] = from_float<T>(p.scale * total);
        }
    }

    // -1: none.
    __device__ static int64_t slot_of(const DecodeParams& p, int64_t batch) {
        const int64_t slot = p.slots == nullptr ? batch : integer_at(p.slots, p.slots_are_int64, batch);
        return slot >= 0 && slot < p.slot_count ? slot : -1;
    }

    __device__ static int accepted_of(const DecodeParams& p, int64_t batch) {
        if (kOneToken) return 1;
        if (p.accepted == nullptr) return p.tokens;
        const int64_t accepted = integer_at(p.accepted, p.accepted_are_int64, batch);
        return static_cast<int>(min(max(accepted, int64_t{0}), int64_t{p.tokens}));
    }

    __device__ static void run(const DecodeParams& p) {
        __shared__ Shared shared;
        // Found before the wait below; the compiler would leave most of it until after.
        Part part(p, blockIdx.x);
        part.q = ptx::opaque(part.q);
        part.k = ptx::opaque(part.k);
        part.v = ptx::opaque(part.v);
        part.in = ptx::opaque(part.in);
        const bool with_output = kOneToken || p.output.data != nullptr;
        const bool with_state = kOneToken || p.state_out.data != nullptr;
        const int all_tokens = kOneToken ? 1 : p.tokens;

        // The kernel before this one may still write anything that is read here, the slots too. So this slot is a guess
        // and its state is not looked at before the wait; a wrong guess costs time and changes nothing.
        const int block = static_cast<int>(blockIdx.x);
        const Guess guess = block < p.early_blocks ? Guess(p, part) : Guess();
        prefetch_state(p, guess);
        Guess later;
        if (kOneToken && block < p.prefetching_blocks) later = Guess(p, Part(p, blockIdx.x + p.early_blocks));
        ptx::wait_for_prior_kernel();

        Words words{};
        if (guess.slot >= 0) load_state(p, guess.offset, words);
        // Only now, so that the next kernel's prefetches come after these loads.
        ptx::let_next_kernel_start();
        prefetch_state(p, later);
        const float rate = p.decay_rate[part.head];
        Token token{};
        load_token(p, part, 0, with_output, token);
        const int64_t slot = slot_of(p, part.batch);
        const int tokens = accepted_of(p, part.batch);
        if (slot < 0) {
            if (with_output) store_output(p, part, 0, all_tokens, 0, shared);
            return;
        }
        if (part.is_inside && slot != guess.slot) load_state(p, in_slot(p, part, slot), words);
        const float decay = expf(-rate);
        if constexpr (kOneToken) {
            float sum[kColumns] = {};
#pragma unroll
            for (int d = 0; d < kRows; ++d) {
                float row[kColumns];
                words.row[d].keep_packed();
                unpack(words.row[d], row);
                advance(token, d, decay, row, sum);
                words.row[d] = Row::of(row);
            }
            // The stores are under way during the reduction.
            if (part.is_inside) store_state(p, part, slot, words);
            keep_sums(sum, shared.sums[0]);
        } else {
            float state[kRows][kColumns];
#pragma unroll
            for (int d = 0; d < kRows; ++d) unpack(words.row[d], state[d]);
#pragma unroll 1
            for (int t = 0; t < tokens; ++t) {
                Token next{};
                if (kLoadsAhead && t + 1 < tokens) load_token(p, part, t + 1, with_output, next);
                float sum[kColumns] = {};
#pragma unroll
                for (int d = 0; d < kRows; ++d) advance(token, d, decay, state[d], sum);
                if (!kLoadsAhead && t + 1 < tokens) load_token(p, part, t + 1, with_output, next);
                token = next;
                if (!with_output) continue;
                keep_sums(sum, shared.sums[t % kSumTokens]);
                if (t % kSumTokens < kSumTokens - 1) continue;
                __syncthreads();
                store_output(p, part, t + 1 - kSumTokens, t + 1, tokens, shared);
                __syncthreads();
            }
#pragma unroll
            for (int d = 0; d < kRows; ++d) words.row[d] = Row::of(state[d]);
            if (with_state && part.is_inside) store_state(p, part, slot, words);
        }
        if (!with_output) return;
        __syncthreads();
        store_output(p, part, tokens / kSumTokens * kSumTokens, all_tokens, tokens, shared);
    }
};

} // namespace lattn::cuda

// The kernels of one pair of types, for D up to 128 and up to 256. Those of one token and of several are apart.
#define LATTN_DECODE_KERNEL(name, type, state_type, tokens, rows)                                                   \
    extern "C" __global__ void __launch_bounds__(lattn::cuda::Decode<type, state_type, tokens, rows>::kThreads,     \
                                                 lattn::cuda::Decode<type, state_type, tokens, rows>::kBlocksPerSm) \
        name(const __grid_constant__ lattn::cuda::DecodeParams params) {                                            \
        lattn::cuda::Decode<type, state_type, tokens, rows>::run(params);                                           \
    }
#define LATTN_DECODE_KERNELS(types, type, state_type)                                                            \
    LATTN_DECODE_KERNEL(lattn_decode_##types##_d128, type, state_type, 1, 128)                                   \
    LATTN_DECODE_KERNEL(lattn_decode_##types##_d256, type, state_type, 1, 256)                                   \
    LATTN_DECODE_KERNEL(lattn_decode_draft_##types##_d128, type, state_type, lattn::cuda::kMaxDecodeTokens, 128) \
    LATTN_DECODE_KERNEL(lattn_decode_draft_##types##_d256, type, state_type, lattn::cuda::kMaxDecodeTokens, 256)
