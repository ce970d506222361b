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

} // namespace lattn::cuda::ptx
