// A CUDA driver without a GPU: memory is the host's, kernels run on the emulator, once something waits for them. A
// kernel that may start early runs together with the one before it. With its folder in LD_LIBRARY_PATH the library
// under test opens it as libcuda.so.1, and its whole CUDA path is run: views, tensor maps, workspaces, grids, launches
// and the kernels' own sources.
#include <cuda.h>
#include <sys/mman.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <string>
#include <type_traits>
#include <utility>

#include "gpu_emulator/emulator.h"

// The kernels, as functions of their names.
#include "activation/activation.cu"
#include "decay_grad/decay_grad.cu"
#include "decode/decode.cu"
#include "gated_norm/gated_norm.cu"
#include "group_sum/group_sum.cu"
#include "packed/clear_padding.cu"
#include "scan/scan_bf16.cu"
#include "scan/scan_fp16.cu"
#include "scan/scan_fp32.cu"
#include "scan/scan_tf32.cu"
#include "segmented_scan/packed_scan_bf16_sm90a.cu"
#include "segmented_scan/packed_scan_fp16_sm90a.cu"
#include "segmented_scan/segmented_scan_bf16_sm90a.cu"
#include "segmented_scan/segmented_scan_fp16_sm90a.cu"
#include "segmented_scan/sequence_table_sm90a.cu"

namespace lattn::emulator {
namespace {

// Few, so that small problems fill the device.
constexpr int kMultiprocessors = 4;

thread_local int contexts = 0; // on this thread's stack of them

// A kernel with its parameters, and what makes one of a launch's parameters.
using Call = std::function<void(const Config&, const std::function<void()>& prior)>;
using Kernel = std::function<Call(const void* params)>;

template <typename Params>
Kernel kernel(void (*function)(Params)) {
    return [function](const void* params) -> Call {
        // The driver copies parameters at the launch.
        std::remove_const_t<Params> copy;
        std::memcpy(static_cast<void*>(&copy), params, sizeof(copy));
        return [function, copy](const Config& config, const std::function<void()>& prior) {
            run(
                config, [&](char*) { function(copy); }, prior);
        };
    };
}

#define LATTN_KERNEL(name) \
    { #name, kernel(name) }
#define LATTN_KERNELS_OF_SIZES(name) \
    LATTN_KERNEL(name##_d64), LATTN_KERNEL(name##_d128), LATTN_KERNEL(name##_d192), LATTN_KERNEL(name##_d256)
#define LATTN_KERNELS_OF_TYPES(name) LATTN_KERNEL(name##_bf16), LATTN_KERNEL(name##_fp16), LATTN_KERNEL(name##_fp32)

#undef LATTN_DECODE_KERNELS
#define LATTN_DECODE_KERNELS(types)                                                       \
    LATTN_KERNEL(lattn_decode_##types##_d128), LATTN_KERNEL(lattn_decode_##types##_d256), \
        LATTN_KERNEL(lattn_decode_draft_##types##_d128), LATTN_KERNEL(lattn_decode_draft_##types##_d256)
#define LATTN_DECODE_KERNELS_OF_STATES(type)                                          \
    LATTN_DECODE_KERNELS(type##_state_bf16), LATTN_DECODE_KERNELS(type##_state_fp16), \
        LATTN_DECODE_KERNELS(type##_state_fp32)

const std::map<std::string, Kernel>& kernels() {
    static const std::map<std::string, Kernel> all = {
        LATTN_KERNELS_OF_SIZES(lattn_scan_bf16),
        LATTN_KERNELS_OF_SIZES(lattn_scan_fp16),
        LATTN_KERNELS_OF_SIZES(lattn_scan_fp32),
        LATTN_KERNELS_OF_SIZES(lattn_scan_tf32),
        LATTN_KERNELS_OF_SIZES(lattn_segmented_scan_bf16),
        LATTN_KERNELS_OF_SIZES(lattn_segmented_scan_fp16),
        LATTN_KERNEL(lattn_segment_sums_bf16_d64),
        LATTN_KERNEL(lattn_segment_sums_fp16_d64),
        LATTN_KERNEL(lattn_segment_sums_bf16_d128),
        LATTN_KERNEL(lattn_segment_sums_fp16_d128),
        LATTN_KERNELS_OF_SIZES(lattn_combine_segments_bf16),
        LATTN_KERNELS_OF_SIZES(lattn_combine_segments_fp16),
        LATTN_KERNELS_OF_SIZES(lattn_packed_scan_bf16),
        LATTN_KERNEL(lattn_packed_scan_fp16_d192),
        LATTN_KERNEL(lattn_packed_scan_fp16_d256),
        LATTN_KERNEL(lattn_packed_sums_bf16),
        LATTN_KERNEL(lattn_packed_sums_fp16),
        LATTN_KERNELS_OF_SIZES(lattn_combine_packed_bf16),
        LATTN_KERNEL(lattn_combine_packed_fp16_d192),
        LATTN_KERNEL(lattn_combine_packed_fp16_d256),
        LATTN_KERNEL(lattn_sequence_table),
        LATTN_KERNELS_OF_TYPES(lattn_decay_grad),
        LATTN_KERNEL(lattn_decay_grad_reduce),
        LATTN_KERNELS_OF_TYPES(lattn_group_sum),
        LATTN_KERNEL(lattn_clear_padding),
        LATTN_DECODE_KERNELS_OF_STATES(bf16),
        LATTN_DECODE_KERNELS_OF_STATES(fp16),
        LATTN_DECODE_KERNELS_OF_STATES(fp32),
        LATTN_KERNELS_OF_TYPES(lattn_gated_norm),
        LATTN_KERNELS_OF_TYPES(lattn_gated_norm_any),
        LATTN_KERNELS_OF_TYPES(lattn_gated_norm_backward),
        LATTN_KERNELS_OF_TYPES(lattn_gated_norm_backward_any),
        LATTN_KERNELS_OF_TYPES(lattn_gated_norm_sum),
        LATTN_KERNELS_OF_TYPES(lattn_activate),
    };
    return all;
}

// The last kernel that was launched, if it has not run yet. All streams are one here.
std::function<void()> queued;

CUresult run_reporting(const std::function<void()>& work) {
    try {
        if (work) work();
    } catch (const std::exception& failure) {
        std::fprintf(stderr, "emulated launch: %s\n", failure.what());
        return CUDA_ERROR_LAUNCH_FAILED;
    }
    return CUDA_SUCCESS;
}

CUresult finish_queued() {
    return run_reporting(std::exchange(queued, nullptr));
}

// overlaps: the kernel may start while the one before it runs.
CUresult launch(CUfunction function, unsigned blocks, unsigned threads, unsigned shared_bytes, void** arguments,
                bool overlaps) {
    static uint64_t launches = 0;
    Config config;
    config.blocks = static_cast<int>(blocks);
    config.threads = static_cast<int>(threads);
    config.shared_bytes = shared_bytes;
    config.seed = launches++;
    const Call call = (*reinterpret_cast<const Kernel*>(function))(arguments[0]);
    std::function<void()> prior;
    if (overlaps) prior = std::exchange(queued, nullptr);
    if (const CUresult result = finish_queued(); result != CUDA_SUCCESS) return result;
    const auto work = [call, config, prior] { call(config, prior); };
    // Which pairs overlap changes from launch to launch.
    if (prior || config.seed % 3 == 0) return run_reporting(work);
    queued = work;
    return CUDA_SUCCESS;
}

// Memory between pages that cannot be accessed: NULL if there is none.
constexpr size_t kGuardBytes = size_t{1} << 20;
std::map<char*, size_t> allocated; // sizes

char* allocate(size_t bytes) {
    constexpr size_t kPage = 4096;
    bytes = (bytes + kPage - 1) / kPage * kPage;
    void* guarded =
        mmap(nullptr, bytes + 2 * kGuardBytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (guarded == MAP_FAILED) return nullptr;
    char* const memory = static_cast<char*>(guarded) + kGuardBytes;
    mprotect(memory, bytes, PROT_READ | PROT_WRITE);
    allocated[memory] = bytes;
    return memory;
}

void free_allocated(char* memory) {
    const auto found = allocated.find(memory);
    if (found == allocated.end()) return;
    munmap(memory - kGuardBytes, found->second + 2 * kGuardBytes);
    allocated.erase(found);
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
    contexts = 1;
    return CUDA_SUCCESS;
}
CUresult cuCtxPushCurrent(CUcontext) {
    ++contexts;
    return CUDA_SUCCESS;
}
CUresult cuCtxPopCurrent(CUcontext* context) {
    if (contexts == 0) return CUDA_ERROR_INVALID_CONTEXT;
    --contexts;
    *context = nullptr;
    return CUDA_SUCCESS;
}
CUresult cuCtxSynchronize() {
    return finish_queued();
}
CUresult cuStreamCreate(CUstream* stream, unsigned) {
    *stream = nullptr;
    return CUDA_SUCCESS;
}
CUresult cuStreamSynchronize(CUstream) {
    return finish_queued();
}
CUresult cuStreamIsCapturing(CUstream, CUstreamCaptureStatus* status) {
    *status = CU_STREAM_CAPTURE_STATUS_NONE;
    return CUDA_SUCCESS;
}
CUresult cuStreamWaitEvent(CUstream, CUevent, unsigned) {
    return finish_queued();
}
CUresult cuEventCreate(CUevent* event, unsigned) {
    *event = nullptr;
    return CUDA_SUCCESS;
}
CUresult cuEventRecord(CUevent, CUstream) {
    return finish_queued();
}
CUresult cuEventElapsedTime(float* milliseconds, CUevent, CUevent) {
    *milliseconds = 0.0f; // how long it emulates says nothing
    return CUDA_SUCCESS;
}

CUresult cuMemAlloc(CUdeviceptr* memory, size_t bytes) {
    *memory = reinterpret_cast<CUdeviceptr>(allocate(bytes));
    return *memory != 0 ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}
CUresult cuMemFree(CUdeviceptr memory) {
    const CUresult result = finish_queued();
    free_allocated(reinterpret_cast<char*>(memory));
    return result;
}
CUresult cuMemcpyHtoDAsync(CUdeviceptr to, const void* from, size_t bytes, CUstream) {
    const CUresult result = finish_queued();
    std::memcpy(reinterpret_cast<void*>(to), from, bytes);
    return result;
}
CUresult cuMemcpyDtoHAsync(void* to, CUdeviceptr from, size_t bytes, CUstream) {
    const CUresult result = finish_queued();
    std::memcpy(to, reinterpret_cast<const void*>(from), bytes);
    return result;
}
CUresult cuMemsetD8Async(CUdeviceptr to, unsigned char byte, size_t bytes, CUstream) {
    const CUresult result = finish_queued();
    std::memset(reinterpret_cast<void*>(to), byte, bytes);
    return result;
}

CUresult cuTensorMapEncodeTiled(CUtensorMap* map, CUtensorMapDataType type, cuuint32_t rank, void* data,
                                const cuuint64_t* sizes, const cuuint64_t* strides, const cuuint32_t* box,
                                const cuuint32_t* steps, CUtensorMapInterleave interleave, CUtensorMapSwizzle swizzle,
                                CUtensorMapL2promotion, CUtensorMapFloatOOBfill fill) {
    if (contexts == 0) return CUDA_ERROR_INVALID_CONTEXT;
    const bool is_float = type == CU_TENSOR_MAP_DATA_TYPE_FLOAT32;
    if ((!is_float && type != CU_TENSOR_MAP_DATA_TYPE_BFLOAT16) || rank != 4 ||
        interleave != CU_TENSOR_MAP_INTERLEAVE_NONE || fill != CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE)
        return CUDA_ERROR_NOT_SUPPORTED;
    TensorLayout layout{};
    layout.data = data;
    layout.element_bytes = is_float ? 4 : 2;
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
    return launch(function, blocks, threads, shared_bytes, arguments, false);
}
CUresult cuLaunchKernelEx(const CUlaunchConfig* config, CUfunction function, void** arguments, void**) {
    bool overlaps = false;
    // Where the blocks of a cluster run is all that a kernel of ours asks of it.
    for (unsigned i = 0; i < config->numAttrs; ++i) {
        const CUlaunchAttribute& attribute = config->attrs[i];
        if (attribute.id == CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION &&
            config->gridDimX % attribute.value.clusterDim.x != 0)
            return CUDA_ERROR_INVALID_VALUE;
        if (attribute.id == CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION)
            overlaps = attribute.value.programmaticStreamSerializationAllowed != 0;
    }
    return launch(function, config->gridDimX, config->blockDimX, config->sharedMemBytes, arguments, overlaps);
}

} // extern "C"
