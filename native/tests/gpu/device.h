// Where the tested calls run: a GPU, or host memory that stands for one.
#pragma once

#include <cstddef>
#include <functional>
#include <string>

#include "lightning_attn.h"

namespace lattn::test {

// Every failure is a std::runtime_error that names the failed call.
class Device {
public:
    virtual ~Device() = default;

    virtual lattn_device_type type() const = 0;
    virtual int multiprocessors() const = 0;

    virtual void* allocate(std::size_t bytes) = 0; // 256-byte aligned
    virtual void release(void* memory) noexcept = 0;

    // Queued in order on stream(), which waits for no other stream. Host memory must live until synchronize().
    virtual void upload(void* to, const void* from, std::size_t bytes) = 0;
    virtual void download(void* to, const void* from, std::size_t bytes) = 0;
    virtual void fill(void* to, unsigned char byte, std::size_t bytes) = 0;
    virtual void* stream() const = 0;
    virtual void synchronize() = 0;
    // Queues what `work` queues on stream(), `times` times, recorded once as a CUDA graph. False where the device or
    // its driver has no graphs; nothing is queued then. What `work` calls for the first time must have been called
    // before.
    virtual bool replay(const std::function<void()>& work, int times) = 0;
};

// The forward kernel's name in `text`, or why there is none.
lattn_status describe(lattn_device_type type, lattn_dtype dtype, lattn_cuda_path path, std::string& text);

// For a device of which nothing is missing: the one that all tests share.
Device& device_of(lattn_device_type type);
Device& host_device();
Device& cuda_device();

} // namespace lattn::test
