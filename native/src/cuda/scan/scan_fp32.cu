#include "scan/scan_kernel.cuh"

LATTN_SCAN_KERNEL(lattn_scan_fp32_d64, float, 64)
LATTN_SCAN_KERNEL(lattn_scan_fp32_d128, float, 128)
LATTN_SCAN_KERNEL(lattn_scan_fp32_d192, float, 192)
LATTN_SCAN_KERNEL(lattn_scan_fp32_d256, float, 256)
