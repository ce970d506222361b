// What the files of isa/ give to the table of their instruction set.
#pragma once

#include "cpu/isa/convert.h"
#include "cpu/kernels.h"

namespace lattn::cpu::LATTN_CPU_ISA {

template <typename Element>
void scan(const Scan& description, void* scratch);

template <typename Element>
void decode_head(const DecodeHead& head);

} // namespace lattn::cpu::LATTN_CPU_ISA
