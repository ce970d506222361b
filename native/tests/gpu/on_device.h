// Tests that run the same body on the CPU and on a GPU. On the CPU they test themselves: cases, mirrors, references.
#pragma once

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "gpu/mirror.h"

namespace lattn::test {

struct Target {
    lattn_device_type device;
    lattn_dtype dtype;
    lattn_dtype state_dtype = LATTN_FLOAT32; // of decode
    bool allow_tf32 = false;
    lattn_cuda_path cuda_path = LATTN_CUDA_PATH_AUTOMATIC;
};

// "cuda_bfloat16"; gtest's filter *cuda_* leaves the CPU out.
std::string name_of(const Target& target);
inline void PrintTo(const Target& target, std::ostream* out) {
    *out << name_of(target);
}

// Skips where the target's device is missing, or fails where LATTN_REQUIRE_CUDA=1 demands one.
class OnDevice : public ::testing::TestWithParam<Target> {
protected:
    void SetUp() override;

    Device& device() const { return device_of(GetParam().device); }

    Case target_case(const Sizes& sizes) const {
        Case c;
        c.sizes = sizes;
        c.dtype = GetParam().dtype;
        c.device_type = GetParam().device;
        c.allow_tf32 = GetParam().allow_tf32;
        return c;
    }

    // Each runs the passes that its name says and judges their results.
    void check_forward(const Case& c);
    void check_forward_and_backward(const Case& c);
    void check(const GatedNormCase& c);
    void check(const ActivationCase& c);

private:
    template <typename ProblemOf, typename CaseOf>
    void check_all(const CaseOf& c);
};

inline const std::vector<lattn_dtype> kDeviceTypes = {LATTN_BFLOAT16, LATTN_FLOAT16, LATTN_FLOAT32};

// These types on CUDA, and the first of them on the CPU, whose kernels have tests of their own.
inline std::vector<Target> targets(const std::vector<lattn_dtype>& dtypes) {
    std::vector<Target> result = {{LATTN_CPU, dtypes.front()}};
    for (lattn_dtype dtype : dtypes) result.push_back({LATTN_CUDA, dtype});
    return result;
}

inline std::vector<Target> cuda_targets() {
    std::vector<Target> result;
    for (lattn_dtype dtype : kDeviceTypes) result.push_back({LATTN_CUDA, dtype});
    return result;
}

// All types that the operators take, and float32 once more with factors rounded to tf32.
inline std::vector<Target> operator_targets() {
    std::vector<Target> result = targets(kDeviceTypes);
    result.push_back({LATTN_CUDA, LATTN_FLOAT32, LATTN_FLOAT32, true});
    return result;
}

inline std::string target_name(const ::testing::TestParamInfo<Target>& info) {
    return name_of(info.param);
}

// Skips too where the forward pass has no Hopper kernel.
class OnHopper : public OnDevice {
protected:
    void SetUp() override;

    Case hopper_case(const Sizes& sizes) const {
        Case c = target_case(sizes);
        c.cuda_path = LATTN_CUDA_PATH_HOPPER;
        c.scale = 0.25;
        c.backward = false;
        return c;
    }
};

inline const std::vector<lattn_dtype> kHopperTypes = {LATTN_BFLOAT16, LATTN_FLOAT16};

} // namespace lattn::test
