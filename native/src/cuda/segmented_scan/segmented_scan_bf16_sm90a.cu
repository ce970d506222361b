#include "segmented_scan/segmented_scan_kernel.cuh"

LATTN_SEGMENTED_SCAN_KERNELS(bf16_d64, __nv_bfloat16, 64)
LATTN_SEGMENTED_SCAN_KERNELS(bf16_d128, __nv_bfloat16, 128)
LATTN_SEGMENTED_SCAN_KERNELS(bf16_d192, __nv_bfloat16, 192)
LATTN_SEGMENTED_SCAN_KERNELS(bf16_d256, __nv_bfloat16, 256)
LATTN_SEGMENT_SUMS_KERNEL(bf16_d64, __nv_bfloat16, 64)
LATTN_SEGMENT_SUMS_KERNEL(bf16_d128, __nv_bfloat16, 128)
