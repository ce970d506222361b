// The sequences of a packed batch of a few, a lane for each in a warp of every CTA.
#pragma once

#include "packed/clear_padding.cuh"
#include "ptx/lane.cuh"
#include "segmented_scan/packed_sequence.cuh"

namespace lattn::cuda {

class FewSequences : PackedSequence {
public:
    // By the whole warp, as all that follows.
    __device__ explicit FewSequences(const PackedCall& p) : own_(own_of(p)) {
        const int lane = ptx::opaque_lane();
        int longer = 0;
#pragma unroll 4
        for (int other = 0; other < static_cast<int>(p.packed.sequences); ++other) {
            const int tokens = __shfl_sync(kAllLanes, own_.tokens, other);
            longer += tokens > own_.tokens || (tokens == own_.tokens && other < lane);
        }
        rank_ = own_.tokens > 0 ? longer : -1;
    }

    // Whether they are others by now.
    __device__ bool have_changed(const PackedCall& p) const {
        const Own now = own_of(p);
        const bool other = now.first != own_.first || now.tokens != own_.tokens || now.entry != own_.entry ||
                           now.states != own_.states;
        return __ballot_sync(kAllLanes, other) != 0;
    }

    // Those with tokens.
    __device__ int count() const {
        return __popc(__ballot_sync(kAllLanes, rank_ >= 0));
    }

    // Of that of a rank, from 0: the longest come first.
    __device__ int index_of(int rank) const {
        return __ffs(static_cast<int>(__ballot_sync(kAllLanes, rank_ == rank))) - 1;
    }

    __device__ Sequence at(int index) const {
        const int states = __shfl_sync(kAllLanes, own_.states, index);
        return {__shfl_sync(kAllLanes, own_.first, index), __shfl_sync(kAllLanes, own_.tokens, index),
                __shfl_sync(kAllLanes, own_.entry, index), states & kReads, states & kWrites};
    }

    __device__ void set_scan(const PackedCall& p, int rank, SequenceScan& scan) const {
        const int index = index_of(rank);
        const Sequence sequence = at(index);
        if (ptx::opaque_lane() > 0) return;
        PackedSequence::set_scan(p, index, sequence, segments_of(sequence), scan);
    }

    // Clears what belongs to no sequence, and the slots of empty ones that start from zeros. By warp `worker` of so
    // many.
    __device__ static void clear_others(const PackedCall& p, int worker, int workers) {
        if (p.padding.data != nullptr)
            ClearPadding::run(p.padding, worker, workers, [&](int64_t token) { return is_padding(p, token); });
        if (p.packed.pool == nullptr) return;
        with_words(p, [&](auto word) { clear_states<decltype(word)>(p, worker, workers); });
    }

private:
    // Offsets out of order may give a token to a sequence that a search does not find.
    __device__ static bool is_padding(const PackedCall& p, int64_t token) {
        for (int index = 0; index < static_cast<int>(p.packed.sequences); ++index) {
            const Sequence sequence = sequence_at(p, index);
            if (token >= sequence.first && token - sequence.first < sequence.tokens) return false;
        }
        return true;
    }

    static constexpr unsigned kAllLanes = 0xffffffffu;

    // A lane's sequence; none is one without tokens. Slots of few sequences fit into 32 bits, as tokens always do.
    struct Own {
        int first, tokens, entry;
        int states; // kReads, kWrites
    };
    static constexpr int kReads = 1;
    static constexpr int kWrites = 2;

    __device__ static Own own_of(const PackedCall& p) {
        const int lane = ptx::opaque_lane();
        if (lane >= p.packed.sequences) return {};
        const Sequence sequence = sequence_at(p, lane);
        return {static_cast<int>(sequence.first), static_cast<int>(sequence.tokens), static_cast<int>(sequence.entry),
                (sequence.reads_state ? kReads : 0) + (sequence.writes_state ? kWrites : 0)};
    }

    Own own_;
    int rank_; // -1: it is empty, or there is none for this lane
};

} // namespace lattn::cuda
