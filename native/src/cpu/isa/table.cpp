// The kernel table of one instruction set.
#include "cpu/isa/kernels.h"

#define LATTN_STRINGIFY_(name) #name
#define LATTN_STRINGIFY(name) LATTN_STRINGIFY_(name)

namespace lattn::cpu::LATTN_CPU_ISA {
namespace {

template <typename Element>
void load_row(void* destination, const void* source, int64_t count) {
    widen_row(static_cast<Arithmetic<Element>*>(destination), static_cast<const Element*>(source), count);
}

template <typename Element>
void store_row(void* destination, const void* source, int64_t count) {
    narrow_row(static_cast<Element*>(destination), static_cast<const Arithmetic<Element>*>(source), count);
}

template <typename Element>
constexpr TypeKernels type_kernels() {
    return {scan<Element>, decode_head<Element>, load_row<Element>, store_row<Element>};
}

} // namespace

constinit const Kernels kernels = {LATTN_STRINGIFY(LATTN_CPU_ISA), type_kernels<Float16>(), type_kernels<BFloat16>(),
                                   type_kernels<float>(), type_kernels<double>()};

} // namespace lattn::cpu::LATTN_CPU_ISA
