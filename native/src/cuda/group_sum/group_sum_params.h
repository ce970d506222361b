// Parameters of the kernel that sums gradients over the value heads of a query/key head.
#pragma once

#include "scan/scan_params.h"

namespace lattn::cuda {

struct GroupSumParams {
    const float* partial; // [B, Hv, N, D], contiguous
    TensorView out;       // [B, Hk, N, D]
    int64_t rows;         // B * Hk * N
    int64_t tokens;
    int32_t heads_qk;
    int32_t group; // Hv / Hk
    int32_t dim;   // D
};

constexpr int kGroupSumThreads = 256;

} // namespace lattn::cuda
