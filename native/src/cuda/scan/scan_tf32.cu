#include "scan/scan_kernel.cuh"

LATTN_SCAN_KERNEL(lattn_scan_tf32_d64, lattn::cuda::Tf32, 64)
LATTN_SCAN_KERNEL(lattn_scan_tf32_d128, lattn::cuda::Tf32, 128)
LATTN_SCAN_KERNEL(lattn_scan_tf32_d192, lattn::cuda::Tf32, 192)
LATTN_SCAN_KERNEL(lattn_scan_tf32_d256, lattn::cuda::Tf32, 256)
