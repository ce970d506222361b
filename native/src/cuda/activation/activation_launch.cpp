// The activation on CUDA: fills the kernel's parameters and queues it.
#include "common/dtype.h"
#include "common/problem.h"
#include "cuda/activation/activation_params.h"
#include "cuda/cuda.h"
#include "cuda/host/device.h"

namespace lattn::cuda {

Status activate(const lattn_activation_params& params) {
    const auto is_aligned = [](const void* data) { return reinterpret_cast<uintptr_t>(data) % kActivationBytes == 0; };
    int kernel = 0;
    LATTN_RETURN_IF_ERROR(find_kernel(Operation::kActivate, params.dtype, 0, 0, kernel));
    Device* device = nullptr;
    LATTN_RETURN_IF_ERROR(Device::get(params.device_index, device));
    ActivationParams activation{};
    activation.input = params.input;
    activation.grad = params.grad;
    activation.output = params.output;
    activation.count = params.count;
    activation.activation = params.activation;
    activation.aligned = is_aligned(params.input) && is_aligned(params.grad) && is_aligned(params.output);
    const int64_t cta_elements = kActivationCtaBytes / static_cast<int64_t>(dtype_bytes(params.dtype));
    return device->launch(kernel, ceil_div(params.count, cta_elements), static_cast<CUstream>(params.stream),
                          activation, device->earliest_start());
}

} // namespace lattn::cuda
