// An activation of contiguous elements, a part of them after the other, widened to the arithmetic type.
#include <algorithm>

#include "common/dtype.h"
#include "common/problem.h"
#include "cpu/activated.h"
#include "cpu/cpu.h"
#include "cpu/kernels.h"
#include "cpu/parallel.h"

namespace lattn::cpu {
namespace {

constexpr int64_t kPart = 1024; // elements

template <typename T>
void activate_part(const lattn_activation_params& params, int64_t first, int64_t count) {
    const auto at = [&](const void* data) {
        return static_cast<const char*>(data) + first * static_cast<int64_t>(dtype_bytes(params.dtype));
    };
    T values[kPart], grads[kPart];
    kernels_for(params.dtype).load(values, at(params.input), count);
    if (params.grad != nullptr) kernels_for(params.dtype).load(grads, at(params.grad), count);
    for (int64_t i = 0; i < count; ++i) {
        const auto activated = Activated<T>::of(params.activation, values[i]);
        values[i] = params.grad != nullptr ? grads[i] * activated.derivative : activated.value;
    }
    kernels_for(params.dtype).store(const_cast<char*>(at(params.output)), values, count);
}

} // namespace

Status activate(const lattn_activation_params& params) {
    const int64_t parts = ceil_div(params.count, kPart);
    parallel_for(parts, threads_for(parts, kElementCost * static_cast<double>(params.count)), [&](int64_t part, int) {
        const int64_t first = part * kPart, count = std::min(kPart, params.count - first);
        if (params.dtype == LATTN_FLOAT64)
            activate_part<double>(params, first, count);
        else
            activate_part<float>(params, first, count);
    });
    return ok();
}

} // namespace lattn::cpu
