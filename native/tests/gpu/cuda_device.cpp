// Memory and a stream of the first GPU, by the CUDA driver API, opened at run time.
#include <cuda.h>

#include <stdexcept>
#include <string>

#include "common/platform.h"
#include "gpu/device.h"
#include "gpu/dynamic_library.h"

namespace lattn::test {
namespace {

class CudaDevice : public Device {
public:
    CudaDevice() {
        library_.bind("cuInit", init_);
        library_.bind("cuGetErrorName", get_error_name_);
        library_.bind("cuDeviceGet", device_get_);
        library_.bind("cuDeviceGetAttribute", device_get_attribute_);
        library_.bind("cuDevicePrimaryCtxRetain", primary_context_retain_);
        library_.bind("cuCtxSetCurrent", set_current_);
        library_.bind("cuStreamCreate", stream_create_);
        library_.bind("cuStreamSynchronize", stream_synchronize_);
        library_.bind("cuMemAlloc_v2", allocate_);
        library_.bind("cuMemFree_v2", free_);
        library_.bind("cuMemcpyHtoDAsync_v2", copy_to_device_);
        library_.bind("cuMemcpyDtoHAsync_v2", copy_to_host_);
        library_.bind("cuMemsetD8Async", fill_);
        library_.bind_if_present("cuStreamBeginCapture_v2", begin_capture_);
        library_.bind_if_present("cuStreamEndCapture", end_capture_);
        library_.bind_if_present("cuGraphInstantiateWithFlags", instantiate_);
        library_.bind_if_present("cuGraphLaunch", launch_graph_);
        library_.bind_if_present("cuGraphExecDestroy", destroy_executable_);
        library_.bind_if_present("cuGraphDestroy", destroy_graph_);

        check(init_(0), "cuInit");
        CUdevice device = 0;
        check(device_get_(&device, 0), "cuDeviceGet");
        check(device_get_attribute_(&multiprocessors_, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, device),
              "cuDeviceGetAttribute");
        CUcontext context = nullptr;
        check(primary_context_retain_(&context, device), "cuDevicePrimaryCtxRetain");
        check(set_current_(context), "cuCtxSetCurrent");
        // Not ordered with the default stream: work that the library queues elsewhere would be seen unfinished.
        check(stream_create_(&stream_, CU_STREAM_NON_BLOCKING), "cuStreamCreate");
    }

    lattn_device_type type() const override { return LATTN_CUDA; }
    int multiprocessors() const override { return multiprocessors_; }

    void* allocate(std::size_t bytes) override {
        CUdeviceptr memory = 0;
        check(allocate_(&memory, bytes), "cuMemAlloc");
        return reinterpret_cast<void*>(memory);
    }
    void release(void* memory) noexcept override { free_(address(memory)); }

    void upload(void* to, const void* from, std::size_t bytes) override {
        check(copy_to_device_(address(to), from, bytes, stream_), "cuMemcpyHtoDAsync");
    }
    void download(void* to, const void* from, std::size_t bytes) override {
        check(copy_to_host_(to, address(from), bytes, stream_), "cuMemcpyDtoHAsync");
    }
    void fill(void* to, unsigned char byte, std::size_t bytes) override {
        check(fill_(address(to), byte, bytes, stream_), "cuMemsetD8Async");
    }
    void* stream() const override { return stream_; }
    void synchronize() override { check(stream_synchronize_(stream_), "cuStreamSynchronize"); }

    bool replay(const std::function<void()>& work, int times) override {
        if (begin_capture_ == nullptr || end_capture_ == nullptr || instantiate_ == nullptr ||
            launch_graph_ == nullptr || destroy_executable_ == nullptr || destroy_graph_ == nullptr)
            return false;
        CUgraph graph = nullptr;
        CUgraphExec executable = nullptr;
        // Relaxed: the caller may allocate memory for the work.
        check(begin_capture_(stream_, CU_STREAM_CAPTURE_MODE_RELAXED), "cuStreamBeginCapture");
        work();
        check(end_capture_(stream_, &graph), "cuStreamEndCapture");
        check(instantiate_(&executable, graph, 0), "cuGraphInstantiate");
        for (int i = 0; i < times; ++i) check(launch_graph_(executable, stream_), "cuGraphLaunch");
        synchronize();
        destroy_executable_(executable);
        destroy_graph_(graph);
        return true;
    }

private:
    static CUdeviceptr address(const void* memory) { return reinterpret_cast<CUdeviceptr>(memory); }

    void check(CUresult result, const char* call) const {
        if (result == CUDA_SUCCESS) return;
        const char* name = nullptr;
        get_error_name_(result, &name);
        throw std::runtime_error(std::string(call) + " failed: " + (name != nullptr ? name : "unknown error"));
    }

    const DynamicLibrary library_{kCudaDriver, "the NVIDIA driver"};
    decltype(&cuInit) init_ = nullptr;
    decltype(&cuGetErrorName) get_error_name_ = nullptr;
    decltype(&cuDeviceGet) device_get_ = nullptr;
    decltype(&cuDeviceGetAttribute) device_get_attribute_ = nullptr;
    decltype(&cuDevicePrimaryCtxRetain) primary_context_retain_ = nullptr;
    decltype(&cuCtxSetCurrent) set_current_ = nullptr;
    decltype(&cuStreamCreate) stream_create_ = nullptr;
    decltype(&cuStreamSynchronize) stream_synchronize_ = nullptr;
    decltype(&cuMemAlloc) allocate_ = nullptr;
    decltype(&cuMemFree) free_ = nullptr;
    decltype(&cuMemcpyHtoDAsync) copy_to_device_ = nullptr;
    decltype(&cuMemcpyDtoHAsync) copy_to_host_ = nullptr;
    decltype(&cuMemsetD8Async) fill_ = nullptr;
    decltype(&cuStreamBeginCapture) begin_capture_ = nullptr;
    decltype(&cuStreamEndCapture) end_capture_ = nullptr;
    CUresult (*instantiate_)(CUgraphExec*, CUgraph, unsigned long long) = nullptr;
    decltype(&cuGraphLaunch) launch_graph_ = nullptr;
    decltype(&cuGraphExecDestroy) destroy_executable_ = nullptr;
    decltype(&cuGraphDestroy) destroy_graph_ = nullptr;
    CUstream stream_ = nullptr;
    int multiprocessors_ = 0;
};

} // namespace

Device& cuda_device() {
    static CudaDevice device;
    return device;
}

} // namespace lattn::test
