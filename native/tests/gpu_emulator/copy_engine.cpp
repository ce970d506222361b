#include "gpu_emulator/copy_engine.h"

#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string>
#include <utility>

#include "gpu_emulator/block.h"

namespace lattn::emulator {
namespace {

constexpr uint64_t kMapMark = 0x6c61'7474'6e6d'6170u;
constexpr uint32_t kSwizzledRowBytes = 128;

uint32_t place(const TensorMap& map, uint32_t address) {
    return map.swizzled != 0 ? swizzle_128(address) : address;
}

bool is_readable(const char* address) {
    char byte;
    const iovec to{&byte, 1};
    const iovec from{const_cast<char*>(address), 1};
    return process_vm_readv(getpid(), &to, 1, &from, 1, 0) == 1 || errno != EFAULT;
}

} // namespace

TensorMap make_tensor_map(const TensorLayout& layout) {
    const auto require = [](bool holds, const std::string& rule) {
        if (!holds) throw Error("tensor map: " + rule);
    };
    const int64_t row_bytes = int64_t{layout.box[0]} * layout.element_bytes;
    require(reinterpret_cast<uintptr_t>(layout.data) % 16 == 0, "the tensor does not start at a multiple of 16 bytes");
    require(layout.strides_bytes[0] == layout.element_bytes, "the innermost axis is not contiguous");
    require(row_bytes % 16 == 0, "a row of the box is not a multiple of 16 bytes");
    require(!layout.swizzled || row_bytes == kSwizzledRowBytes, "a row of a swizzled box does not have 128 bytes");
    for (int axis = 0; axis < 4; ++axis) {
        const std::string name = "axis " + std::to_string(axis) + ": ";
        const int64_t stride = layout.strides_bytes[axis];
        require(layout.sizes[axis] >= 1 && layout.sizes[axis] <= int64_t{1} << 32, name + "size out of range");
        require(layout.box[axis] >= 1 && layout.box[axis] <= 256, name + "box size out of range");
        require(axis == 0 || (stride % 16 == 0 && stride >= 0 && stride < int64_t{1} << 40),
                name + "stride is not a multiple of 16 below 2^40");
    }
    TensorMap map{};
    map.mark = kMapMark;
    map.data = static_cast<char*>(layout.data);
    std::copy_n(layout.sizes, 4, map.sizes);
    std::copy_n(layout.strides_bytes, 4, map.strides_bytes);
    std::copy_n(layout.box, 4, map.box);
    map.element_bytes = layout.element_bytes;
    map.swizzled = layout.swizzled;
    return map;
}

uint32_t CopyEngine::Box::row_bytes() const {
    return static_cast<uint32_t>(map.box[0] * map.element_bytes);
}

uint32_t CopyEngine::Box::rows() const {
    return static_cast<uint32_t>(map.box[1] * map.box[2] * map.box[3]);
}

uint32_t CopyEngine::Box::bytes() const {
    return rows() * row_bytes();
}

bool CopyEngine::Box::is_outside() const {
    for (int axis = 0; axis < 4; ++axis) {
        if (at[axis] >= map.sizes[axis] || int64_t{at[axis]} + map.box[axis] <= 0) return true;
    }
    return false;
}

void CopyEngine::check(const TensorMap& map, const char* user) {
    if (map.mark != kMapMark) fail(std::string(user) + ": the tensor map was not made by make_tensor_map()");
    if (reinterpret_cast<uintptr_t>(&map) % 64 != 0) fail(std::string(user) + ": the tensor map is not aligned to 64");
}

// Calls visit(address, tensor, first, end) for every row of the box: where it lies in shared memory before the swizzle,
// the tensor's memory at the row's element 0, and the bytes [first, end) of the row that are inside the tensor.
template <typename Visit>
void CopyEngine::for_each_row(const Box& box, Visit visit) {
    const TensorMap& map = box.map;
    const int64_t size = map.element_bytes;
    uint32_t address = box.shared;
    for (int64_t w = box.at[3]; w < int64_t{box.at[3]} + map.box[3]; ++w) {
        for (int64_t z = box.at[2]; z < int64_t{box.at[2]} + map.box[2]; ++z) {
            for (int64_t y = box.at[1]; y < int64_t{box.at[1]} + map.box[1]; ++y, address += box.row_bytes()) {
                const bool inside =
                    w >= 0 && w < map.sizes[3] && z >= 0 && z < map.sizes[2] && y >= 0 && y < map.sizes[1];
                const int64_t begin = std::clamp<int64_t>(-int64_t{box.at[0]}, 0, map.box[0]);
                const int64_t end = std::clamp<int64_t>(map.sizes[0] - box.at[0], begin, map.box[0]);
                char* row = nullptr;
                if (inside)
                    row = map.data + w * map.strides_bytes[3] + z * map.strides_bytes[2] + y * map.strides_bytes[1] +
                          box.at[0] * size;
                visit(address, row, static_cast<uint32_t>(begin * size),
                      static_cast<uint32_t>(inside ? end * size : begin * size));
            }
        }
    }
}

void CopyEngine::load(uint32_t shared, const TensorMap& map, uint32_t barrier, const int32_t (&at)[4]) {
    check(map, "load_box");
    block().mbarriers.check_usable_by_copies(barrier);
    Load load{{map, shared, {at[0], at[1], at[2], at[3]}}, barrier};
    block().shared.at(shared, load.box.bytes(), map.swizzled != 0 ? 1024 : 128, "load_box");
    // Found by trying on an H200, for loads alone: where all of the box is outside, the tensor's address is read.
    if (load.box.is_outside() && !is_readable(map.data))
        fail("load_box: the box is outside of its tensor, whose address cannot be read");
    for (uint32_t offset = 0; offset < load.box.bytes(); offset += 16)
        std::memset(block().shared.at_async(shared + offset, "load_box"), 0xff, 16);
    if (block().acts_early())
        complete(load);
    else
        loads_.push_back(load);
}

void CopyEngine::complete(const Load& load) {
    SharedMemory& shared = block().shared;
    std::vector<unsigned char> bytes(load.box.row_bytes());
    for_each_row(load.box, [&](uint32_t address, const char* row, uint32_t first, uint32_t end) {
        std::fill(bytes.begin(), bytes.end(), static_cast<unsigned char>(0));
        if (first < end) std::memcpy(bytes.data() + first, row + first, end - first);
        for (uint32_t offset = 0; offset < bytes.size(); offset += 16)
            std::memcpy(shared.at_async(place(load.box.map, address + offset), "load_box"), bytes.data() + offset, 16);
    });
    block().mbarriers.complete(load.barrier, load.box.bytes());
}

void CopyEngine::store(const TensorMap& map, uint32_t shared, const int32_t (&at)[4]) {
    check(map, "store_box");
    Store store{{map, shared, {at[0], at[1], at[2], at[3]}}, {}};
    block().shared.at(shared, store.box.bytes(), map.swizzled != 0 ? 1024 : 128, "store_box");
    for (uint32_t offset = 0; offset < store.box.bytes(); offset += 16)
        block().shared.at_async(shared + offset, "store_box");
    if (block().acts_early()) {
        read(store);
        write(store);
    }
    stores_[block().threads.current()].open.push_back(std::move(store));
}

void CopyEngine::read(Store& store) {
    if (store.was_read) return;
    store.was_read = true;
    store.bytes.resize(store.box.bytes());
    for (uint32_t offset = 0; offset < store.bytes.size(); offset += 16)
        std::memcpy(store.bytes.data() + offset,
                    block().shared.at_async(place(store.box.map, store.box.shared + offset), "store_box"), 16);
}

void CopyEngine::read(StoreGroup& group) {
    for (Store& store : group.stores) read(store);
    group.was_read = true;
}

void CopyEngine::write(Store& store) {
    if (store.was_written) return;
    store.was_written = true;
    for_each_row(store.box, [&](uint32_t address, char* row, uint32_t first, uint32_t end) {
        if (first < end)
            std::memcpy(row + first, store.bytes.data() + (address - store.box.shared) + first, end - first);
    });
}

void CopyEngine::write_first(Stores& stores) {
    read(stores.committed.front());
    for (Store& store : stores.committed.front().stores) write(store);
    stores.committed.pop_front();
}

void CopyEngine::commit_stores() {
    Stores& stores = stores_[block().threads.current()];
    stores.committed.push_back({std::exchange(stores.open, {})});
}

void CopyEngine::wait_stores_read(int pending_groups) {
    std::deque<StoreGroup>& groups = stores_[block().threads.current()].committed;
    for (std::size_t i = 0; i + static_cast<std::size_t>(pending_groups) < groups.size(); ++i) read(groups[i]);
}

void CopyEngine::wait_stores() {
    Stores& stores = stores_[block().threads.current()];
    while (!stores.committed.empty()) write_first(stores);
}

bool CopyEngine::progress() {
    if (loads_.empty()) return false;
    std::swap(loads_[block().random() % loads_.size()], loads_.back());
    const Load load = loads_.back();
    loads_.pop_back();
    complete(load);
    return true;
}

void CopyEngine::finish() {
    if (!loads_.empty()) fail(std::to_string(loads_.size()) + " loads are under way at the end of the block");
    for (std::size_t thread = 0; thread < stores_.size(); ++thread) {
        Stores& stores = stores_[thread];
        const auto unread = [](const StoreGroup& group) { return !group.was_read; };
        if (!stores.open.empty() || std::any_of(stores.committed.begin(), stores.committed.end(), unread))
            fail("thread " + std::to_string(thread) + " ended before its stores had read shared memory");
        while (!stores.committed.empty()) write_first(stores);
    }
}

} // namespace lattn::emulator
