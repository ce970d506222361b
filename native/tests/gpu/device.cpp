#include "gpu/device.h"

#include <cstring>
#include <new>

namespace lattn::test {
namespace {

class HostDevice : public Device {
public:
    lattn_device_type type() const override { return LATTN_CPU; }
    // So that "as many heads as multiprocessors" stay few.
    int multiprocessors() const override { return 4; }

    void* allocate(std::size_t bytes) override { return ::operator new(bytes, kAlignment); }
    void release(void* memory) noexcept override { ::operator delete(memory, kAlignment); }

    void upload(void* to, const void* from, std::size_t bytes) override { std::memcpy(to, from, bytes); }
    void download(void* to, const void* from, std::size_t bytes) override { std::memcpy(to, from, bytes); }
    void fill(void* to, unsigned char byte, std::size_t bytes) override { std::memset(to, byte, bytes); }
    void* stream() const override { return nullptr; }
    void synchronize() override {}
    bool replay(const std::function<void()>&, int) override { return false; }

private:
    static constexpr std::align_val_t kAlignment{256};
};

} // namespace

lattn_status describe(lattn_device_type type, lattn_dtype dtype, lattn_cuda_path path, std::string& text) {
    lattn_support_query query = {};
    query.struct_size = sizeof(query);
    query.operation = LATTN_OP_FORWARD;
    query.dtype = dtype;
    query.device_type = type;
    query.cuda_path = path;
    query.head_dim_qk = query.head_dim_v = 64;
    char name[64] = "";
    const lattn_status status = lattn_describe(&query, name, sizeof(name));
    text = status == LATTN_OK ? name : lattn_last_error();
    return status;
}

Device& device_of(lattn_device_type type) {
    return type == LATTN_CUDA ? cuda_device() : host_device();
}

Device& host_device() {
    static HostDevice device;
    return device;
}

} // namespace lattn::test
