// Emulates ptx/streaming.cuh.
#pragma once

namespace lattn::cuda::ptx {

template <typename Word>
Word load_streaming(const Word* from) {
    return *from;
}

template <typename Word>
void store_streaming(Word* to, const Word& value) {
    *to = value;
}

template <typename Word>
void store_evict_first(Word* to, const Word& value) {
    *to = value;
}

inline void prefetch_l2(const void*) {}

template <typename Integer>
Integer load_past_l1(const Integer* from) {
    return *from;
}

} // namespace lattn::cuda::ptx
