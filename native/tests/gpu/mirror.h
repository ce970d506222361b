// Host tensors, their guards included, copied to a device and back, with the calls between.
//
// A call's parameters are made for the host tensors; the mirror replaces every pointer by its device address. Until
// fetch() the host memory holds 0xff, so that a pointer that was not replaced cannot go unnoticed.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <span>
#include <vector>

#include "activation_problem.h"
#include "decode_problem.h"
#include "gated_norm_problem.h"
#include "gpu/device.h"
#include "problem.h"

namespace lattn::test {

class Mirror {
public:
    using Bytes = std::span<unsigned char>;

    // Inputs must come back unchanged.
    Mirror(Device& device, const std::vector<Bytes>& inputs, const std::vector<Bytes>& results);
    Mirror(Device& device, Problem& problem, const std::vector<Tensor*>& more_results = {});
    // `in_place`: state_in is written.
    Mirror(Device& device, Decode& decode, bool in_place);
    Mirror(Device& device, GatedNormProblem& problem);

    // Queue the call, with a workspace of exactly the size that it asks for.
    // From here on every call of the library is made on a new thread.
    void use_new_threads() { new_threads_ = true; }

    void forward(lattn_forward_params params);
    void backward(lattn_backward_params params);
    void forward(lattn_gated_norm_forward_params params);
    void backward(lattn_gated_norm_backward_params params);
    void activate(lattn_activation_params params) { activate(params, device_.stream()); }
    void activate(lattn_activation_params params, void* stream);
    // Returns the status: a call may be refused for its values.
    lattn_status decode(lattn_decode_params params);

    // Replaces the pointers of a decode call, which decode() does itself.
    void relocate(lattn_decode_params& params) const;

    // Bytes of the workspaces so far.
    uint64_t workspace_bytes() const { return workspace_bytes_; }

    // Waits for the calls, brings everything back and checks that no input was changed, and nothing after a workspace.
    void fetch();

    // The device address of mirrored host memory; NULL for NULL. Throws std::out_of_range for other memory.
    void* at(const void* host) const;

private:
    struct Release {
        Device* device;
        void operator()(void* memory) const noexcept { device->release(memory); }
    };
    using Memory = std::unique_ptr<void, Release>;

    struct Region {
        Bytes host;
        std::vector<unsigned char> before; // of an input
        Memory memory;
    };

    struct Workspace {
        Memory memory; // with a guard behind it
        uint64_t bytes;
    };

    Memory allocate(std::size_t bytes) { return Memory(device_.allocate(bytes), Release{&device_}); }
    void add(Bytes host, bool is_input);
    void* workspace(uint64_t bytes);
    void expect_guard_intact(const Workspace& workspace);
    template <typename Call>
    bool succeeds(Call call) const; // a failure fails the test
    template <typename Params>
    void relocate_inputs(Params& params) const;

    Device& device_;
    std::vector<Region> regions_;
    std::vector<Workspace> workspaces_;
    uint64_t workspace_bytes_ = 0;
    bool new_threads_ = false;
};

} // namespace lattn::test
