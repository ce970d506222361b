// A CUDA driver without a GPU: memory is the host's, Hopper's kernels run on the emulator when they are launched. With
// its folder in LD_LIBRARY_PATH the library under test opens it as libcuda.so.1, and its whole CUDA path for these
// kernels is run: tensor maps, workspaces, grids, launches. Kernels that are not the emulator's are not found.
#include <cuda.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <string>

#include "gpu_emulator/emulator.h"
#include "segmented_scan/segmented_scan_kernel.cuh"

namespace lattn::emulator {
namespace {

using cuda::SegmentedScanParams;

// Few, so that small problems fill the device.
constexpr int kMultiprocessors = 4;

using Kernel = std::function<void(const Config&, const SegmentedScanParams&)>;

template <typename T, int kRowDim>
void add_kernels(std::map<std::string, Kernel>& kernels, const std::string& suffix) {
    kernels["lattn_segmented_scan_" + suffix] = [](const Config& config, const SegmentedScanParams& params) {
        run(config, [&](char* shared) { cuda::SegmentedScan<T, kRowDim, true>::run(params, shared); });
    };
    kernels["lattn_segment_sums_" + suffix] = [](const Config& config, const SegmentedScanParams& params) {
        run(config, [&](char* shared) { cuda::SegmentedScan<T, kRowDim, false>::run(params, shared); });
    };
    kernels["lattn_combine_segments_" + suffix] = [](const Config& config, const SegmentedScanParams& params) {
        run(config, [&](char*) { cuda::combine_segments<kRowDim>(params); });
    };
}

template <typename T>
void add_kernels(std::map<std::string, Kernel>& kernels, const std::string& type) {
    add_kernels<T, 64>(kernels, type + "_d64");
    add_kernels<T, 128>(kernels, type + "_d128");
    add_kernels<T, 192>(kernels, type + "_d192");
    add_kernels<T, 256>(kernels, type + "_d256");
}

const std::map<std::string, Kernel>& kernels() {
    static const std::map<std::string, Kernel> all = [] {
        std::map<std::string, Kernel> table;
        add_kernels<__nv_bfloat16>(table, "bf16");
        add_kernels<__half>(table, "fp16");
        return table;
    }();
    return all;
}

CUresult launch(CUfunction function, unsigned blocks, unsigned threads, unsigned shared_bytes, void** arguments) {
    static uint64_t launches = 0;
    Config config;
    config.blocks = static_cast<int>(blocks);
    config.threads = static_cast<int>(threads);
    config.shared_bytes = shared_bytes;
    config.seed = launches++;
    // The driver copies parameters at the launch.
    SegmentedScanParams params;
    std::memcpy(static_cast<void*>(&params), arguments[0], sizeof(params));
    try {
        (*reinterpret_cast<const Kernel*>(function))(config, params);
    } catch (const std::exception& failure) {
        std::fprintf(stderr, "emulated launch: %s\n", failure.what());
        return CUDA_ERROR_LAUNCH_FAILED;
    }
    return CUDA_SUCCESS;
}

} // namespace
} // namespace lattn::emulator

using namespace lattn::emulator;

extern "C" {

CUresult cuInit(unsigned) {
    return CUDA_SUCCESS;
}
CUresult cuGetErrorName(CUresult result, const char** name) {
    *name = result == CUDA_ERROR_NOT_FOUND ? "CUDA_ERROR_NOT_FOUND" : "an emulated CUDA error";
    return CUDA_SUCCESS;
}
CUresult cuGetErrorString(CUresult, const char** text) {
    *text = "emulated driver";
    return CUDA_SUCCESS;
}
CUresult cuDeviceGetCount(int* count) {
    *count = 1;
    return CUDA_SUCCESS;
}
CUresult cuDeviceGet(CUdevice* device, int ordinal) {
    *device = ordinal;
    return CUDA_SUCCESS;
}
CUresult cuDeviceGetName(char* name, int bytes, CUdevice) {
    std::snprintf(name, static_cast<std::size_t>(bytes), "emulated Hopper");
    return CUDA_SUCCESS;
}
CUresult cuDeviceGetAttribute(int* value, CUdevice_attribute attribute, CUdevice) {
    *value = attribute == CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR ? 9
             : attribute == CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT   ? kMultiprocessors
                                                                       : 0;
    return CUDA_SUCCESS;
}

CUresult cuDevicePrimaryCtxRetain(CUcontext* context, CUdevice) {
    static int only;
    *context = reinterpret_cast<CUcontext>(&only);
    return CUDA_SUCCESS;
}
CUresult cuCtxSetCurrent(CUcontext) {
    return CUDA_SUCCESS;
}
CUresult cuCtxPushCurrent(CUcontext) {
    return CUDA_SUCCESS;
}
CUresult cuCtxPopCurrent(CUcontext* context) {
    *context = nullptr;
    return CUDA_SUCCESS;
}
CUresult cuCtxSynchronize() {
    return CUDA_SUCCESS;
}
CUresult cuStreamCreate(CUstream* stream, unsigned) {
    *stream = nullptr;
    return CUDA_SUCCESS;
}
CUresult cuStreamSynchronize(CUstream) {
    return CUDA_SUCCESS;
}

CUresult cuMemAlloc(CUdeviceptr* memory, size_t bytes) {
    constexpr size_t kAlignment = 256;
    *memory = reinterpret_cast<CUdeviceptr>(
        std::aligned_alloc(kAlignment, (bytes + kAlignment - 1) / kAlignment * kAlignment));
    return *memory != 0 ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}
CUresult cuMemFree(CUdeviceptr memory) {
    std::free(reinterpret_cast<void*>(memory));
    return CUDA_SUCCESS;
}
CUresult cuMemcpyHtoDAsync(CUdeviceptr to, const void* from, size_t bytes, CUstream) {
    std::memcpy(reinterpret_cast<void*>(to), from, bytes);
    return CUDA_SUCCESS;
}
CUresult cuMemcpyDtoHAsync(void* to, CUdeviceptr from, size_t bytes, CUstream) {
    std::memcpy(to, reinterpret_cast<const void*>(from), bytes);
    return CUDA_SUCCESS;
}
CUresult cuMemsetD8Async(CUdeviceptr to, unsigned char byte, size_t bytes, CUstream) {
    std::memset(reinterpret_cast<void*>(to), byte, bytes);
    return CUDA_SUCCESS;
}

CUresult cuTensorMapEncodeTiled(CUtensorMap* map, CUtensorMapDataType type, cuuint32_t rank, void* data,
                                const cuuint64_t* sizes, const cuuint64_t* strides, const cuuint32_t* box,
                                const cuuint32_t* steps, CUtensorMapInterleave interleave, CUtensorMapSwizzle swizzle,
                                CUtensorMapL2promotion, CUtensorMapFloatOOBfill fill) {
    if (type != CU_TENSOR_MAP_DATA_TYPE_BFLOAT16 || rank != 4 || interleave != CU_TENSOR_MAP_INTERLEAVE_NONE ||
        fill != CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE)
        return CUDA_ERROR_NOT_SUPPORTED;
    TensorLayout layout{};
    layout.data = data;
    layout.element_bytes = 2;
    for (int axis = 0; axis < 4; ++axis) {
        if (steps[axis] != 1) return CUDA_ERROR_NOT_SUPPORTED;
        layout.sizes[axis] = static_cast<int64_t>(sizes[axis]);
        layout.strides_bytes[axis] = axis == 0 ? layout.element_bytes : static_cast<int64_t>(strides[axis - 1]);
        layout.box[axis] = static_cast<int32_t>(box[axis]);
    }
    layout.swizzled = swizzle == CU_TENSOR_MAP_SWIZZLE_128B;
    try {
        const TensorMap made = make_tensor_map(layout);
        static_assert(sizeof(made) == sizeof(*map));
        std::memcpy(static_cast<void*>(map), &made, sizeof(made));
    } catch (const std::exception& failure) {
        std::fprintf(stderr, "emulated tensor map: %s\n", failure.what());
        return CUDA_ERROR_INVALID_VALUE;
    }
    return CUDA_SUCCESS;
}

CUresult cuModuleLoadData(CUmodule* module, const void*) {
    static int only;
    *module = reinterpret_cast<CUmodule>(&only);
    return CUDA_SUCCESS;
}
CUresult cuModuleGetFunction(CUfunction* function, CUmodule, const char* name) {
    const auto found = kernels().find(name);
    if (found == kernels().end()) return CUDA_ERROR_NOT_FOUND;
    *function = reinterpret_cast<CUfunction>(const_cast<Kernel*>(&found->second));
    return CUDA_SUCCESS;
}
CUresult cuFuncSetAttribute(CUfunction, CUfunction_attribute, int) {
    return CUDA_SUCCESS;
}
CUresult cuLaunchKernel(CUfunction function, unsigned blocks, unsigned, unsigned, unsigned threads, unsigned, unsigned,
                        unsigned shared_bytes, CUstream, void** arguments, void**) {
    return launch(function, blocks, threads, shared_bytes, arguments);
}
CUresult cuLaunchKernelEx(const CUlaunchConfig* config, CUfunction function, void** arguments, void**) {
    return launch(function, config->gridDimX, config->blockDimX, config->sharedMemBytes, arguments);
}

} // extern "C"
