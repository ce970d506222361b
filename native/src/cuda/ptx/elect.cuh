// One lane of a warp (sm_90). The compiler knows that the branch on it does not diverge further.
#pragma once

#include <cstdint>

namespace lattn::cuda::ptx {

// True for one lane, the same one every time; all lanes of the warp call it together.
__device__ __forceinline__ bool elect_one() {
    uint32_t elected;
    asm volatile(
        "{\n"
        ".reg .pred elected;\n"
        "elect.sync _|elected, 0xffffffff;\n"
        "selp.u32 %0, 1, 0, elected;\n"
        "}\n"
        : "=r"(elected));
    return elected != 0;
}

} // namespace lattn::cuda::ptx
