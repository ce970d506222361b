// Keeps addresses out of registers where the compiler would compute them once and hold them through a whole loop.
#pragma once

namespace lattn::cuda::ptx {

// Returns `value`; what is computed from it is not moved out of the loop that calls this.
template <typename T>
__device__ __forceinline__ T opaque(T value) {
    static_assert(sizeof(T) == 4 || sizeof(T) == 8);
    if constexpr (sizeof(T) == 4)
        asm volatile("" : "+r"(value));
    else
        asm volatile("" : "+l"(value));
    return value;
}

} // namespace lattn::cuda::ptx
