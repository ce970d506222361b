// What the CUDA backend tells about itself.
#include <cstring>

#include "cuda/cuda.h"
#include "cuda/host/device.h"
#include "cuda/segmented_scan/segmented_scan_launch.h"

namespace lattn::cuda {

Status describe(const lattn_support_query& query, const char*& name) {
    LATTN_RETURN_IF_ERROR(check_head_dim("head_dim_qk", query.head_dim_qk));
    LATTN_RETURN_IF_ERROR(check_head_dim("head_dim_v", query.head_dim_v));
    const bool scans = query.operation != LATTN_OP_DECODE;
    // Backward: the scans for dq and dk.
    const int64_t row_dim = query.operation == LATTN_OP_BACKWARD ? query.head_dim_v : query.head_dim_qk;
    int kernel = 0;
    if (scans)
        LATTN_RETURN_IF_ERROR(find_scan(query.dtype, query.allow_tf32 != 0, row_dim, kernel));
    else
        LATTN_RETURN_IF_ERROR(find_kernel(Operation::kDecode, query.dtype, query.state_dtype, row_dim, kernel));
    Device* device = nullptr;
    LATTN_RETURN_IF_ERROR(Device::get(query.device_index, device));
    if (scans && query.cuda_path == LATTN_CUDA_PATH_HOPPER) {
        LATTN_RETURN_IF_ERROR(find_segmented_scan(*device, Operation::kSegmentedScan, query.dtype, row_dim, kernel));
    } else if (scans && query.cuda_path == LATTN_CUDA_PATH_AUTOMATIC) {
        const LastErrorKept kept;
        int segmented = 0;
        if (find_segmented_scan(*device, Operation::kSegmentedScan, query.dtype, row_dim, segmented).code == LATTN_OK)
            kernel = segmented;
    }
    name = kernel_at(kernel).name;
    return ok();
}

Status multiprocessor_count(int device_index, int& count) {
    Device* device = nullptr;
    LATTN_RETURN_IF_ERROR(Device::get(device_index, device));
    count = device->multiprocessors();
    return ok();
}

Status synchronize(int device_index) {
    Device* device = nullptr;
    LATTN_RETURN_IF_ERROR(Device::get(device_index, device));
    return device->synchronize();
}

int kernel_count() {
    return kKernelCount;
}

void kernel_info(int index, lattn_kernel_info& info) {
    const Kernel& kernel = kernel_at(index);
    info.name = kernel.name;
    info.module = module_at(kernel.module).name;
    info.threads = kernel.threads;
    info.dynamic_smem_bytes = kernel.shared_bytes;
}

Status module_image(const char* module, const void*& image, uint64_t& bytes) {
    for (int index = 0; index < kModuleCount; ++index) {
        if (std::strcmp(module_at(index).name, module) != 0) continue;
        image = module_at(index).image;
        bytes = *module_at(index).bytes;
        return ok();
    }
    return error(LATTN_INVALID_ARGUMENT, "module = \"%s\" is not a CUDA module of this library", module);
}

} // namespace lattn::cuda
