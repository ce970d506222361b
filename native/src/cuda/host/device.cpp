#include "cuda/host/device.h"

#include <array>
#include <atomic>
#include <climits>
#include <mutex>

#include "cuda/host/side_stream.h"

namespace lattn::cuda {
namespace {

constexpr int kMaxDevices = 64;
constexpr int kMinimumMajor = 8;
// The first whose kernels may start during the one before them, as ptx/dependent_launch.cuh has it.
constexpr int kOverlapCapability = 90;

Status read_attribute(const Driver& driver, CUdevice device, CUdevice_attribute attribute, int& value) {
    return check_driver(driver, driver.DeviceGetAttribute(&value, attribute, device), "cuDeviceGetAttribute",
                        "a device");
}

} // namespace

// Modules and functions are loaded on first use and kept, side streams made and kept. Readers take the function without
// a lock.
struct Device::Loaded {
    std::mutex mutex;
    std::array<CUmodule, kModuleCount> modules{};
    std::array<std::atomic<CUfunction>, kKernelCount> functions{};
    SideStreams sides;
};

Device::CurrentContext::CurrentContext(const Device& device)
    : driver_(*device.driver_), result_(driver_.CtxPushCurrent(device.context_)) {}

Device::CurrentContext::~CurrentContext() {
    CUcontext previous = nullptr;
    if (result_ == CUDA_SUCCESS) driver_.CtxPopCurrent(&previous);
}

Status Device::CurrentContext::status(const char* what) const {
    return check_driver(driver_, result_, "cuCtxPushCurrent", what);
}

Status Device::get(int index, Device*& device) {
    static std::mutex mutex;
    static std::array<std::atomic<Device*>, kMaxDevices> devices{};

    const Driver* driver = nullptr;
    LATTN_RETURN_IF_ERROR(get_driver(driver));
    if (index < 0 || index >= kMaxDevices)
        return error(LATTN_INVALID_ARGUMENT, "device_index = %d must be from 0 to %d", index, kMaxDevices - 1);
    auto& entry = devices[static_cast<std::size_t>(index)];
    device = entry.load(std::memory_order_acquire);
    if (device != nullptr) return ok();

    const std::lock_guard lock(mutex);
    device = entry.load(std::memory_order_relaxed);
    if (device != nullptr) return ok();
    Device candidate;
    LATTN_RETURN_IF_ERROR(candidate.initialize(*driver, index));
    candidate.loaded_ = new Loaded;
    device = new Device(candidate);
    entry.store(device, std::memory_order_release);
    return ok();
}

Status Device::initialize(const Driver& driver, int index) {
    driver_ = &driver;
    int count = 0;
    LATTN_RETURN_IF_ERROR(check(driver.DeviceGetCount(&count), "cuDeviceGetCount", "this machine"));
    if (index >= count)
        return error(LATTN_INVALID_ARGUMENT, "device_index = %d, but this machine has %d CUDA device(s)", index, count);
    CUdevice device = 0;
    LATTN_RETURN_IF_ERROR(check(driver.DeviceGet(&device, index), "cuDeviceGet", "a device"));
    int major = 0;
    int minor = 0;
    LATTN_RETURN_IF_ERROR(read_attribute(driver, device, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, major));
    LATTN_RETURN_IF_ERROR(read_attribute(driver, device, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, minor));
    if (major < kMinimumMajor) {
        char name[128] = "unknown device";
        driver.DeviceGetName(name, sizeof(name), device);
        return error(
            LATTN_NOT_SUPPORTED,
            "CUDA device %d (%s) has compute capability %d.%d; lightning_attn needs 8.0 or higher (Ampere or newer)",
            index, name, major, minor);
    }
    compute_capability_ = 10 * major + minor;
    LATTN_RETURN_IF_ERROR(read_attribute(driver, device, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, multiprocessors_));
    // The primary context is the one that libtorch and the CUDA runtime use. It is never released: the process's other
    // users decide about its life.
    return check(driver.DevicePrimaryCtxRetain(&context_, device), "cuDevicePrimaryCtxRetain", "a device");
}

Start Device::earliest_start() const {
    const bool overlaps = compute_capability_ >= kOverlapCapability && driver_->LaunchKernelEx != nullptr;
    return overlaps ? Start::kDuringPrior : Start::kAfterPrior;
}

Status Device::check(CUresult result, const char* call, const char* what) const {
    return check_driver(*driver_, result, call, what);
}

Status Device::get_function(int kernel, CUfunction& function) {
    auto& entry = loaded_->functions[static_cast<std::size_t>(kernel)];
    function = entry.load(std::memory_order_acquire);
    if (function != nullptr) return ok();

    const std::lock_guard lock(loaded_->mutex);
    const Kernel& info = kernel_at(kernel);
    CUmodule& module = loaded_->modules[static_cast<std::size_t>(info.module)];
    if (module == nullptr) {
        const Module& source = module_at(info.module);
        LATTN_RETURN_IF_ERROR(check(driver_->ModuleLoadData(&module, source.image), "cuModuleLoadData", source.name));
    }
    LATTN_RETURN_IF_ERROR(
        check(driver_->ModuleGetFunction(&function, module, info.name), "cuModuleGetFunction", info.name));
    if (info.shared_bytes > 48 * 1024)
        LATTN_RETURN_IF_ERROR(check(
            driver_->FuncSetAttribute(function, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, info.shared_bytes),
            "cuFuncSetAttribute", info.name));
    entry.store(function, std::memory_order_release);
    return ok();
}

Status Device::launch_untyped(int kernel, int64_t blocks, CUstream stream, void* params, Start start,
                              uint32_t cluster_blocks) {
    if (blocks == 0) return ok();
    const Kernel& info = kernel_at(kernel);
    if (blocks > INT_MAX)
        return error(LATTN_NOT_SUPPORTED, "%s would need %lld blocks, more than the %d of one launch: split the batch",
                     info.name, static_cast<long long>(blocks), INT_MAX);
    const CurrentContext current(*this);
    LATTN_RETURN_IF_ERROR(current.status(info.name));
    CUfunction function = nullptr;
    LATTN_RETURN_IF_ERROR(get_function(kernel, function));
    void* arguments[] = {params};
    if (start == Start::kDuringPrior) {
        CUlaunchAttribute attributes[2]{};
        attributes[0].id = CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION;
        attributes[0].value.programmaticStreamSerializationAllowed = 1;
        attributes[1].id = CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION;
        attributes[1].value.clusterDim = {cluster_blocks, 1, 1};
        CUlaunchConfig config{};
        config.gridDimX = static_cast<unsigned>(blocks);
        config.gridDimY = config.gridDimZ = 1;
        config.blockDimX = static_cast<unsigned>(info.threads);
        config.blockDimY = config.blockDimZ = 1;
        config.sharedMemBytes = static_cast<unsigned>(info.shared_bytes);
        config.hStream = stream;
        config.attrs = attributes;
        config.numAttrs = cluster_blocks > 1 ? 2 : 1;
        return check(driver_->LaunchKernelEx(&config, function, arguments, nullptr), "cuLaunchKernelEx", info.name);
    }
    return check(
        driver_->LaunchKernel(function, static_cast<unsigned>(blocks), 1, 1, static_cast<unsigned>(info.threads), 1, 1,
                              static_cast<unsigned>(info.shared_bytes), stream, arguments, nullptr),
        "cuLaunchKernel", info.name);
}

Status Device::clear(void* data, uint64_t bytes, CUstream stream) {
    if (bytes == 0) return ok();
    const CurrentContext current(*this);
    LATTN_RETURN_IF_ERROR(current.status("a fill"));
    return check(driver_->MemsetD8Async(reinterpret_cast<CUdeviceptr>(data), 0, bytes, stream), "cuMemsetD8Async",
                 "a fill");
}

Status Device::fork(CUstream stream, CUstream& side) {
    const CurrentContext current(*this);
    LATTN_RETURN_IF_ERROR(current.status("a side stream"));
    return loaded_->sides.fork(*this, stream, side);
}

Status Device::join(CUstream stream, CUstream side) {
    const CurrentContext current(*this);
    LATTN_RETURN_IF_ERROR(current.status("a side stream"));
    return loaded_->sides.join(*this, stream, side);
}

Status Device::synchronize() {
    const CurrentContext current(*this);
    LATTN_RETURN_IF_ERROR(current.status("a device"));
    return check(driver_->CtxSynchronize(), "cuCtxSynchronize", "a device");
}

} // namespace lattn::cuda
