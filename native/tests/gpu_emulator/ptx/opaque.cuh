// Emulates ptx/opaque.cuh.
#pragma once

namespace lattn::cuda::ptx {

template <typename T>
T opaque(T value) {
    static_assert(sizeof(T) == 4 || sizeof(T) == 8);
    return value;
}

} // namespace lattn::cuda::ptx
