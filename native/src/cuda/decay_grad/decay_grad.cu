#include "decay_grad/decay_grad_kernel.cuh"

LATTN_DECAY_GRAD_KERNEL(lattn_decay_grad_bf16, __nv_bfloat16)
LATTN_DECAY_GRAD_KERNEL(lattn_decay_grad_fp16, __half)
LATTN_DECAY_GRAD_KERNEL(lattn_decay_grad_fp32, float)

// One warp per head adds the partial sums in a fixed order.
extern "C" __global__ void __launch_bounds__(32)
    lattn_decay_grad_reduce(const __grid_constant__ lattn::cuda::DecayGradReduceParams params) {
    double sum = 0.0;
    for (int64_t index = threadIdx.x; index < params.count; index += 32)
        sum += params.partial[blockIdx.x * params.count + index];
    for (int offset = 16; offset > 0; offset /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, offset);
    if (threadIdx.x == 0) params.grad[blockIdx.x] = static_cast<float>(sum);
}
