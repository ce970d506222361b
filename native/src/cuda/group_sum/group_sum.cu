// out[b, hk, n, :] = sum over the group's value heads of partial[b, hv, n, :], one thread per element, heads in order.
#include "group_sum/group_sum_params.h"
#include "tile/element.cuh"

namespace lattn::cuda {

template <typename T>
__device__ void group_sum(const GroupSumParams& p) {
    const int64_t count = p.rows * p.dim;
    for (int64_t index = static_cast<int64_t>(blockIdx.x) * kGroupSumThreads + threadIdx.x; index < count;
         index += static_cast<int64_t>(gridDim.x) * kGroupSumThreads) {
        const int64_t row = index / p.dim;
        const int64_t column = index % p.dim;
        const int64_t token = row % p.tokens;
        const int64_t head = row / p.tokens % p.heads_qk;
        const int64_t batch = row / p.tokens / p.heads_qk;
        const int64_t first = ((batch * p.heads_qk + head) * p.group * p.tokens + token) * p.dim + column;
        float sum = 0.0f;
        for (int member = 0; member < p.group; ++member) sum += p.partial[first + member * p.tokens * p.dim];
        T* out = static_cast<T*>(p.out.data) + batch * p.out.stride_b + head * p.out.stride_h + token * p.out.stride_n;
        out[column] = from_float<T>(sum);
    }
}

} // namespace lattn::cuda

#define LATTN_GROUP_SUM_KERNEL(name, type)                                      \
    extern "C" __global__ void __launch_bounds__(lattn::cuda::kGroupSumThreads) \
        name(const __grid_constant__ lattn::cuda::GroupSumParams params) {      \
        lattn::cuda::group_sum<type>(params);                                   \
    }

LATTN_GROUP_SUM_KERNEL(lattn_group_sum_bf16, __nv_bfloat16)
LATTN_GROUP_SUM_KERNEL(lattn_group_sum_fp16, __half)
LATTN_GROUP_SUM_KERNEL(lattn_group_sum_fp32, float)
