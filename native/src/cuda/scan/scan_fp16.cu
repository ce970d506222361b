#include "scan/scan_kernel.cuh"

LATTN_SCAN_KERNEL(lattn_scan_fp16_d64, __half, 64)
LATTN_SCAN_KERNEL(lattn_scan_fp16_d128, __half, 128)
LATTN_SCAN_KERNEL(lattn_scan_fp16_d192, __half, 192)
LATTN_SCAN_KERNEL(lattn_scan_fp16_d256, __half, 256)
