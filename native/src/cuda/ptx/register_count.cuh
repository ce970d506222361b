// Registers per thread of a warpgroup, moved between the warpgroups of a block (sm_90a). A kernel that does so is
// launched with the registers of its launch bounds, and every warpgroup gives or takes once, in one branch each.
#pragma once

namespace lattn::cuda::ptx {

// kCount: a multiple of 8 from 24 to 256, at most what the thread has.
template <int kCount>
__device__ __forceinline__ void give_registers() {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;\n" ::"n"(kCount));
}

// Waits until the registers are there.
template <int kCount>
__device__ __forceinline__ void take_registers() {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;\n" ::"n"(kCount));
}

} // namespace lattn::cuda::ptx
