// Picks the instruction set at run time.
#include <cstdlib>
#include <cstring>

#include "common/platform.h"
#include "cpu/cpu.h"
#include "cpu/kernels.h"

namespace lattn::cpu {
namespace {

#if defined(LATTN_X86_64)

const Kernels& select() {
    const CpuFeatures features = cpu_features();
    const char* widest = std::getenv("LATTN_CPU_ISA");
    const auto limited_to = [widest](const char* name) { return widest != nullptr && std::strcmp(widest, name) == 0; };
    if (limited_to("baseline") || !features.avx2) return baseline::kernels;
    if (limited_to("avx2") || !features.avx512) return avx2::kernels;
    return avx512::kernels;
}

#else

const Kernels& select() {
    return baseline::kernels;
}

#endif

} // namespace

const Kernels& kernels() {
    static const Kernels& selected = select();
    return selected;
}

const TypeKernels& kernels_for(lattn_dtype dtype) {
    const Kernels& all = kernels();
    switch (dtype) {
        case LATTN_FLOAT16:
            return all.float16;
        case LATTN_BFLOAT16:
            return all.bfloat16;
        case LATTN_FLOAT64:
            return all.float64;
        default:
            return all.float32;
    }
}

const char* isa_name() {
    return kernels().name;
}

} // namespace lattn::cpu
