// What every instruction set provides. The files of isa/ are compiled once for each, with LATTN_CPU_ISA naming it.
#pragma once

#include "cpu/scan.h"
#include "lightning_attn.h"

namespace lattn::cpu {

// One token of one head: S <- g S + k (x) v, out = scale * S^T q, vectors and arithmetic in the state type.
struct DecodeHead {
    int64_t rows;    // D
    int64_t columns; // E
    const void* q;   // [D]
    const void* k;   // [D]
    const void* v;   // [E]
    void* output;    // [E]
    double scale;
    const void* decay_rate;
    const void* state_in;
    int64_t in_stride_row;
    int64_t in_stride_column;
    void* state_out;
    int64_t out_stride_row;
    int64_t out_stride_column;
};

// The kernels of one element type.
struct TypeKernels {
    // scratch: layout_of(scan) elements of the arithmetic type, aligned to kAlignment.
    void (*scan)(const Scan& scan, void* scratch);
    // The element type here is that of the state in memory.
    void (*decode_head)(const DecodeHead& head);
    // Between the element type and its arithmetic type.
    void (*load)(void* destination, const void* source, int64_t count);
    void (*store)(void* destination, const void* source, int64_t count);
};

struct Kernels {
    const char* name;
    TypeKernels float16;
    TypeKernels bfloat16;
    TypeKernels float32;
    TypeKernels float64;
};

namespace baseline {
extern const Kernels kernels;
}
namespace avx2 {
extern const Kernels kernels;
}
namespace avx512 {
extern const Kernels kernels;
}

// The kernels of the instruction set in use, see isa_name().
const Kernels& kernels();
const TypeKernels& kernels_for(lattn_dtype dtype);

} // namespace lattn::cpu
