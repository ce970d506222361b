#include "cuda/host/side_stream.h"

#include <algorithm>
#include <new>

#include "cuda/cuda.h"
#include "cuda/host/device.h"

namespace lattn::cuda {
namespace {

constexpr const char* kWhat = "a side stream";

} // namespace

Status SideStreams::create_missing(const Device& device, Side& side) {
    const Driver& driver = device.driver();
    for (CUevent* event : {&side.forked, &side.joined})
        if (*event == nullptr)
            LATTN_RETURN_IF_ERROR(
                check_driver(driver, driver.EventCreate(event, CU_EVENT_DISABLE_TIMING), "cuEventCreate", kWhat));
    if (side.stream != nullptr) return ok();
    // The default stream would wait for any other kind.
    return check_driver(driver, driver.StreamCreate(&side.stream, CU_STREAM_NON_BLOCKING), "cuStreamCreate", kWhat);
}

Status SideStreams::fork(const Device& device, CUstream stream, CUstream& side) try {
    const Driver& driver = device.driver();
    CUstreamCaptureStatus capture = CU_STREAM_CAPTURE_STATUS_NONE;
    LATTN_RETURN_IF_ERROR(
        check_driver(driver, driver.StreamIsCapturing(stream, &capture), "cuStreamIsCapturing", kWhat));
    side = stream;
    if (capture != CU_STREAM_CAPTURE_STATUS_NONE) return ok();

    const std::lock_guard lock(mutex_);
    auto free = std::find_if(sides_.begin(), sides_.end(), [&](const Side& other) {
        return other.of == stream && other.by == std::this_thread::get_id() && !other.in_use;
    });
    if (free == sides_.end()) {
        const Side created = {stream, std::this_thread::get_id(), nullptr, nullptr, nullptr, false};
        free = sides_.insert(sides_.end(), created);
    }
    LATTN_RETURN_IF_ERROR(create_missing(device, *free));
    LATTN_RETURN_IF_ERROR(check_driver(driver, driver.EventRecord(free->forked, stream), "cuEventRecord", kWhat));
    LATTN_RETURN_IF_ERROR(
        check_driver(driver, driver.StreamWaitEvent(free->stream, free->forked, 0), "cuStreamWaitEvent", kWhat));
    free->in_use = true;
    side = free->stream;
    return ok();
} catch (const std::bad_alloc&) {
    return error(LATTN_OUT_OF_MEMORY, "out of memory for %s", kWhat);
}

Status SideStreams::join(const Device& device, CUstream stream, CUstream side) {
    if (side == stream) return ok(); // it was being captured
    const Driver& driver = device.driver();
    const std::lock_guard lock(mutex_);
    const auto used = std::find_if(sides_.begin(), sides_.end(), [&](const Side& other) {
        return other.of == stream && other.stream == side && other.in_use;
    });
    if (used == sides_.end())
        return error(LATTN_INVALID_ARGUMENT, "side = %p is not forked from stream = %p", static_cast<void*>(side),
                     static_cast<void*>(stream));
    used->in_use = false;
    LATTN_RETURN_IF_ERROR(check_driver(driver, driver.EventRecord(used->joined, side), "cuEventRecord", kWhat));
    return check_driver(driver, driver.StreamWaitEvent(stream, used->joined, 0), "cuStreamWaitEvent", kWhat);
}

Status fork_stream(int device_index, void* stream, void*& side) {
    Device* device = nullptr;
    LATTN_RETURN_IF_ERROR(Device::get(device_index, device));
    CUstream forked = nullptr;
    LATTN_RETURN_IF_ERROR(device->fork(static_cast<CUstream>(stream), forked));
    side = forked;
    return ok();
}

Status join_stream(int device_index, void* stream, void* side) {
    Device* device = nullptr;
    LATTN_RETURN_IF_ERROR(Device::get(device_index, device));
    return device->join(static_cast<CUstream>(stream), static_cast<CUstream>(side));
}

} // namespace lattn::cuda
