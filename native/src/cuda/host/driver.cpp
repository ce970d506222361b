#include "cuda/host/driver.h"

#include "common/platform.h"

namespace lattn::cuda {
namespace {

enum class Problem { kNone, kNoLibrary, kMissingSymbol, kInitFailed };

struct Opened {
    Driver driver{};
    Problem problem = Problem::kNone;
    const char* symbol = "";
    CUresult result = CUDA_SUCCESS;

    template <typename Function>
    void bind(void* library, const char* name, Function& function) {
        void* address = find_symbol(library, name);
        if (address == nullptr && problem == Problem::kNone) {
            problem = Problem::kMissingSymbol;
            symbol = name;
        }
        function = reinterpret_cast<Function>(address);
    }

    // The library stays open for the life of the process.
    Opened() {
        void* library = open_library(kCudaDriver);
        if (library == nullptr) {
            problem = Problem::kNoLibrary;
            return;
        }
        bind(library, "cuInit", driver.Init);
        bind(library, "cuGetErrorName", driver.GetErrorName);
        bind(library, "cuGetErrorString", driver.GetErrorString);
        bind(library, "cuDeviceGetCount", driver.DeviceGetCount);
        bind(library, "cuDeviceGet", driver.DeviceGet);
        bind(library, "cuDeviceGetName", driver.DeviceGetName);
        bind(library, "cuDeviceGetAttribute", driver.DeviceGetAttribute);
        bind(library, "cuDevicePrimaryCtxRetain", driver.DevicePrimaryCtxRetain);
        bind(library, "cuCtxPushCurrent_v2", driver.CtxPushCurrent);
        bind(library, "cuCtxPopCurrent_v2", driver.CtxPopCurrent);
        bind(library, "cuCtxSynchronize", driver.CtxSynchronize);
        bind(library, "cuModuleLoadData", driver.ModuleLoadData);
        bind(library, "cuModuleGetFunction", driver.ModuleGetFunction);
        bind(library, "cuFuncSetAttribute", driver.FuncSetAttribute);
        bind(library, "cuLaunchKernel", driver.LaunchKernel);
        bind(library, "cuMemsetD8Async", driver.MemsetD8Async);
        bind(library, "cuStreamCreate", driver.StreamCreate);
        bind(library, "cuStreamIsCapturing", driver.StreamIsCapturing);
        bind(library, "cuStreamWaitEvent", driver.StreamWaitEvent);
        bind(library, "cuEventCreate", driver.EventCreate);
        bind(library, "cuEventRecord", driver.EventRecord);
        driver.LaunchKernelEx =
            reinterpret_cast<decltype(driver.LaunchKernelEx)>(find_symbol(library, "cuLaunchKernelEx"));
        driver.TensorMapEncodeTiled =
            reinterpret_cast<decltype(driver.TensorMapEncodeTiled)>(find_symbol(library, "cuTensorMapEncodeTiled"));
        if (problem != Problem::kNone) return;
        result = driver.Init(0);
        if (result != CUDA_SUCCESS) problem = Problem::kInitFailed;
    }
};

} // namespace

Status get_driver(const Driver*& driver) {
    static const Opened opened;
    driver = &opened.driver;
    switch (opened.problem) {
        case Problem::kNone:
            return ok();
        case Problem::kNoLibrary:
            return error(LATTN_NOT_SUPPORTED, "no NVIDIA driver on this machine: %s cannot be opened", kCudaDriver);
        case Problem::kMissingSymbol:
            return error(LATTN_NOT_SUPPORTED, "the NVIDIA driver is too old: %s has no %s", kCudaDriver, opened.symbol);
        case Problem::kInitFailed:
            return check_driver(opened.driver, opened.result, "cuInit", "the NVIDIA driver");
    }
    return error(LATTN_INTERNAL_ERROR, "unknown state of the NVIDIA driver");
}

Status check_driver(const Driver& driver, CUresult result, const char* call, const char* what) {
    if (result == CUDA_SUCCESS) return ok();
    const char* name = nullptr;
    const char* text = nullptr;
    driver.GetErrorName(result, &name);
    driver.GetErrorString(result, &text);
    return error(result == CUDA_ERROR_OUT_OF_MEMORY ? LATTN_OUT_OF_MEMORY : LATTN_CUDA_ERROR,
                 "%s failed for %s: %s (%s)", call, what, name != nullptr ? name : "unknown error",
                 text != nullptr ? text : "no description");
}

} // namespace lattn::cuda
