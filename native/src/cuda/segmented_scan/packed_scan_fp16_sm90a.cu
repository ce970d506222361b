#include "segmented_scan/segmented_scan_kernel.cuh"

// Smaller sizes take the first of these: registers are too few for their own.
LATTN_PACKED_SCAN_KERNELS(fp16_d192, __half, 192)
LATTN_PACKED_SCAN_KERNELS(fp16_d256, __half, 256)
LATTN_PACKED_SUMS_KERNEL(fp16, __half)
