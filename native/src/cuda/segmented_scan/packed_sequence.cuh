// A sequence of a packed batch as its scan is told, and its state in the pool.
#pragma once

#include "packed/sequence.cuh"
#include "segmented_scan/segmented_scan_config.h"
#include "segmented_scan/segmented_scan_params.h"

namespace lattn::cuda {

struct PackedSequence {
    static constexpr int kChunk = SegmentedScanConfig<64>::kChunk;
    static constexpr int kChunksPerSegment = SegmentedScanConfig<64>::kChunksPerSegment;

    // Tokens are at most 2^31 - 1.
    __device__ static unsigned ceil_div(unsigned x, unsigned y) { return (x + y - 1) / y; }
    __device__ static unsigned chunks_of(const Sequence& sequence) {
        return ceil_div(static_cast<unsigned>(sequence.tokens), kChunk);
    }
    __device__ static unsigned segments_of(const Sequence& sequence) {
        return ceil_div(static_cast<unsigned>(sequence.tokens), kSegmentTokens);
    }

    __device__ static Sequence sequence_at(const PackedCall& p, int64_t index) {
        return sequence_of(p.packed, p.call.tokens, index);
    }

    __device__ static int64_t heads_and_slices(const PackedCall& p) {
        return int64_t{p.call.heads} * p.call.value_slices;
    }

    // All of them, or half of what a multiprocessor has to do. chunks: of all sequences.
    __device__ static unsigned segments_per_job(const PackedCall& p, const Sequence& sequence, int64_t chunks) {
        const unsigned all = segments_of(sequence);
        if (!p.may_cut) return all;
        const int64_t work = chunks * heads_and_slices(p); // of all multiprocessors
        if (int64_t{4} * chunks_of(sequence) * p.multiprocessors <= kLongestJobQuarters * work) return all;
        const int64_t half = work / (int64_t{2} * p.multiprocessors * kChunksPerSegment);
        return static_cast<unsigned>(min(max(half, int64_t{1}), int64_t{all}));
    }

    __device__ static unsigned jobs_of(const Sequence& sequence, unsigned per_job) {
        const unsigned segments = segments_of(sequence);
        return per_job == segments ? 1 : ceil_div(segments, per_job);
    }

    __device__ static int64_t state_bytes(const PackedCall& p) { return p.packed.pool_type == kPoolFloat32 ? 4 : 2; }

    __device__ static char* slot_at(const PackedCall& p, const Sequence& sequence) {
        return static_cast<char*>(p.packed.pool) + sequence.entry * p.packed.stride_slot * state_bytes(p);
    }

    // No two sequences of several segments begin within as many tokens.
    __device__ static char* initial_copy(const PackedCall& p, const Sequence& sequence) {
        const int64_t state = int64_t{p.call.heads} * p.call.row_dim * p.call.value_dim;
        return p.initial_copies + sequence.first / kCutSequenceTokens * state * state_bytes(p);
    }

    __device__ static void set_states(const PackedCall& p, const Sequence& sequence, SequenceScan& scan) {
        scan.copied_slot = p.copies_states ? static_cast<int>(sequence.entry) : -1;
        if (p.packed.pool == nullptr) return;
        float* slot = reinterpret_cast<float*>(slot_at(p, sequence));
        const KeptState in_pool{slot, 0, p.packed.stride_h, p.packed.stride_row, p.packed.stride_column};
        scan.final = in_pool;
        if (!sequence.reads_state) return;
        scan.initial = in_pool;
        if (!scan.split) return;
        scan.initial = {reinterpret_cast<float*>(initial_copy(p, sequence)), 0,
                        int64_t{p.call.row_dim} * p.call.value_dim, p.call.value_dim, 1};
    }

    __device__ static void set_scan(const PackedCall& p, int64_t index, const Sequence& sequence, unsigned per_job,
                                    SequenceScan& scan) {
        scan = p.call; // what they have in common
        const int chunks = static_cast<int>(chunks_of(sequence));
        const int segments = static_cast<int>(segments_of(sequence));
        const int jobs = static_cast<int>(jobs_of(sequence, per_job));
        scan.split = jobs > 1;
        scan.summed_segments = (jobs - 1) * static_cast<int>(per_job);
        scan.segments_per_job = static_cast<int>(per_job);
        scan.segments = segments;
        scan.combined = scan.split && (scan.summed_segments > kSumsCombinedByJobs || p.outside_entries > 0);
        scan.state_entries = scan.summed_segments + p.outside_entries;
        scan.end_chunk = p.call.backwards ? segments * kChunksPerSegment : chunks;
        scan.first_chunk = scan.end_chunk - chunks;
        scan.short_chunk = p.call.backwards ? scan.first_chunk : scan.end_chunk - 1;
        scan.token_offset = static_cast<int>(sequence.first);
        scan.short_tokens = static_cast<int>(sequence.tokens) - (chunks - 1) * kChunk;
        // Sequences before this one have at most as many sums as there are whole segments before it.
        const int64_t sums = p.may_cut ? sequence.first / kSegmentTokens : 0;
        const int64_t entries = sums + p.outside_entries * index;
        scan.workspace += entries * heads_and_slices(p) * p.state_floats;
        set_states(p, sequence, scan);
    }

    // E is a multiple of 8, so rows without gaps are multiples of 16 bytes.
    __device__ static bool has_whole_rows(const PackedCall& p) {
        const auto aligned = [&](int64_t stride) { return stride * state_bytes(p) % 16 == 0; };
        return p.packed.stride_column == 1 && reinterpret_cast<uintptr_t>(p.packed.pool) % 16 == 0 &&
               aligned(p.packed.stride_slot) && aligned(p.packed.stride_h) && aligned(p.packed.stride_row);
    }

    // Calls visit(sequence) for those of which chooses(sequence) is true. By a whole warp, a lane of which looks at
    // one.
    template <typename Choose, typename Visit>
    __device__ static void for_each_chosen(const PackedCall& p, Choose chooses, Visit visit) {
        for (int64_t first = 0; first < p.packed.sequences; first += 32) {
            const int64_t own = first + static_cast<int64_t>(threadIdx.x) % 32;
            unsigned chosen = __ballot_sync(0xffffffffu, own < p.packed.sequences && chooses(sequence_at(p, own)));
            for (; chosen != 0; chosen &= chosen - 1)
                visit(sequence_at(p, first + __ffs(static_cast<int>(chosen)) - 1));
        }
    }

    // Zeros in the slots of empty sequences that start from them. By warp `worker` of so many.
    template <typename Word>
    __device__ static void clear_states(const PackedCall& p, int worker, int workers) {
        for_each_chosen(
            p, [](const Sequence& sequence) { return sequence.tokens == 0 && sequence.writes_state; },
            [&](const Sequence& sequence) {
                for_each_word<Word>(p, sequence, nullptr, worker, workers, [](Word& word, Word*) { word = Word{}; });
            });
    }

    // Calls visit(word of the slot, word of a dense state of the same) for the share of a sequence's state that warp
    // `worker` of so many has, words being elements or, where rows have no gaps, several of them. `dense`: NULL if
    // there is none.
    template <typename Word, typename Visit>
    __device__ static void for_each_word(const PackedCall& p, const Sequence& sequence, char* dense, int worker,
                                         int workers, Visit visit) {
        const int bytes = static_cast<int>(state_bytes(p));
        const int lane = static_cast<int>(threadIdx.x) % 32;
        char* slot = slot_at(p, sequence);
        const int rows = p.call.heads * p.call.row_dim;
        const int row_words = p.call.value_dim * bytes / static_cast<int>(sizeof(Word));
        Word* to = reinterpret_cast<Word*>(dense);
        if (sizeof(Word) > 4 && has_no_gaps(p)) {
            // One row; finding the place of each would take longer than its words.
            Word* from = reinterpret_cast<Word*>(slot);
            const int words = rows * row_words;
#pragma unroll 4
            for (int word = worker * 32 + lane; word < words; word += workers * 32) visit(from[word], to + word);
            return;
        }
        const int64_t stride = sizeof(Word) > 4 ? sizeof(Word) : p.packed.stride_column * bytes;
        for (int row = worker; row < rows; row += workers) {
            char* from =
                slot + (row / p.call.row_dim * p.packed.stride_h + row % p.call.row_dim * p.packed.stride_row) * bytes;
            for (int word = lane; word < row_words; word += 32)
                visit(*reinterpret_cast<Word*>(from + word * stride), to + int64_t{row} * row_words + word);
        }
    }

    // Of slots of whole rows.
    __device__ static bool has_no_gaps(const PackedCall& p) {
        return p.packed.stride_row == p.call.value_dim &&
               p.packed.stride_h == int64_t{p.call.row_dim} * p.call.value_dim;
    }

    // Calls visit(a word's type) with the widest words that the slots' rows consist of.
    template <typename Visit>
    __device__ static void with_words(const PackedCall& p, Visit visit) {
        if (has_whole_rows(p))
            visit(uint4{});
        else if (state_bytes(p) == 2)
            visit(uint16_t{});
        else
            visit(uint32_t{});
    }
};

} // namespace lattn::cuda
