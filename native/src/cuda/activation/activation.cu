#include "activation/activation_kernel.cuh"

LATTN_ACTIVATION_KERNEL(bf16, __nv_bfloat16)
LATTN_ACTIVATION_KERNEL(fp16, __half)
LATTN_ACTIVATION_KERNEL(fp32, float)
