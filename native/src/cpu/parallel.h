// Threads, and scratch memory for them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <new>

#include "cpu/scan.h"

namespace lattn::cpu {

// Threads worth starting for `tasks` tasks that together are `multiply_adds` long; at least 1.
int threads_for(int64_t tasks, double multiply_adds);

// Calls task(index, thread) for every index, later indices after earlier ones where threads have a choice.
void parallel_for(int64_t tasks, int threads, const std::function<void(int64_t, int)>& task);

// Aligned memory, bytes_per_thread for each of the threads; empty when there is not enough.
class Scratch {
public:
    Scratch(std::size_t bytes_per_thread, int threads)
        : bytes_per_thread_((bytes_per_thread + kAlignment - 1) / kAlignment * kAlignment),
          data_(::operator new (bytes_per_thread_* static_cast<std::size_t>(threads), std::align_val_t{kAlignment},
                                std::nothrow)) {}
    ~Scratch() { ::operator delete (data_, std::align_val_t{kAlignment}); }
    Scratch(const Scratch&) = delete;
    Scratch& operator=(const Scratch&) = delete;

    explicit operator bool() const { return data_ != nullptr; }
    void* of(int thread) const {
        return static_cast<std::byte*>(data_) + bytes_per_thread_ * static_cast<std::size_t>(thread);
    }

private:
    std::size_t bytes_per_thread_;
    void* data_;
};

} // namespace lattn::cpu
