#include "segmented_scan/segmented_scan_kernel.cuh"

LATTN_SEGMENTED_SCAN_KERNELS(fp16_d64, __half, 64)
LATTN_SEGMENTED_SCAN_KERNELS(fp16_d128, __half, 128)
LATTN_SEGMENTED_SCAN_KERNELS(fp16_d192, __half, 192)
LATTN_SEGMENTED_SCAN_KERNELS(fp16_d256, __half, 256)
