#include "gated_norm/gated_norm_backward_kernel.cuh"
#include "gated_norm/gated_norm_kernel.cuh"

LATTN_GATED_NORM_KERNELS(bf16, __nv_bfloat16)
LATTN_GATED_NORM_KERNELS(fp16, __half)
LATTN_GATED_NORM_KERNELS(fp32, float)
LATTN_GATED_NORM_BACKWARD_KERNELS(bf16, __nv_bfloat16)
LATTN_GATED_NORM_BACKWARD_KERNELS(fp16, __half)
LATTN_GATED_NORM_BACKWARD_KERNELS(fp32, float)
