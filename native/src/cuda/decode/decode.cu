#include "decode/decode_kernel.cuh"

LATTN_DECODE_KERNELS(bf16_state_fp32, __nv_bfloat16, float)
LATTN_DECODE_KERNELS(bf16_state_bf16, __nv_bfloat16, __nv_bfloat16)
LATTN_DECODE_KERNELS(bf16_state_fp16, __nv_bfloat16, __half)
LATTN_DECODE_KERNELS(fp16_state_fp32, __half, float)
LATTN_DECODE_KERNELS(fp16_state_bf16, __half, __nv_bfloat16)
LATTN_DECODE_KERNELS(fp16_state_fp16, __half, __half)
LATTN_DECODE_KERNELS(fp32_state_fp32, float, float)
LATTN_DECODE_KERNELS(fp32_state_bf16, float, __nv_bfloat16)
LATTN_DECODE_KERNELS(fp32_state_fp16, float, __half)
