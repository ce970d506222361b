// The CUDA driver API, opened at run time, so that the library loads where there is no driver.
#pragma once

#include <cuda.h>

#include "common/status.h"

namespace lattn::cuda {

struct Driver {
    decltype(&cuInit) Init;
    decltype(&cuGetErrorName) GetErrorName;
    decltype(&cuGetErrorString) GetErrorString;
    decltype(&cuDeviceGetCount) DeviceGetCount;
    decltype(&cuDeviceGet) DeviceGet;
    decltype(&cuDeviceGetName) DeviceGetName;
    decltype(&cuDeviceGetAttribute) DeviceGetAttribute;
    decltype(&cuDevicePrimaryCtxRetain) DevicePrimaryCtxRetain;
    decltype(&cuCtxPushCurrent) CtxPushCurrent;
    decltype(&cuCtxPopCurrent) CtxPopCurrent;
    decltype(&cuCtxSynchronize) CtxSynchronize;
    decltype(&cuModuleLoadData) ModuleLoadData;
    decltype(&cuModuleGetFunction) ModuleGetFunction;
    decltype(&cuFuncSetAttribute) FuncSetAttribute;
    decltype(&cuLaunchKernel) LaunchKernel;
    decltype(&cuMemsetD8Async) MemsetD8Async;
    decltype(&cuStreamCreate) StreamCreate;
    decltype(&cuStreamIsCapturing) StreamIsCapturing;
    decltype(&cuStreamWaitEvent) StreamWaitEvent;
    decltype(&cuEventCreate) EventCreate;
    decltype(&cuEventRecord) EventRecord;
    // NULL before driver 525.
    decltype(&cuLaunchKernelEx) LaunchKernelEx;
    decltype(&cuTensorMapEncodeTiled) TensorMapEncodeTiled;
};

// The driver, opened and initialised on the first call; the reason when there is none.
Status get_driver(const Driver*& driver);

// LATTN_OK for CUDA_SUCCESS, otherwise LATTN_CUDA_ERROR (or LATTN_OUT_OF_MEMORY) naming `call` and `what`.
Status check_driver(const Driver& driver, CUresult result, const char* call, const char* what);

} // namespace lattn::cuda
