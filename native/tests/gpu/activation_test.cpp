// lattn_activate on a device.
#include "gpu/on_device.h"

namespace lattn::test {
namespace {

class Activation : public OnDevice {
protected:
    ActivationCase target_case() const {
        ActivationCase c;
        c.dtype = GetParam().dtype;
        c.device_type = GetParam().device;
        return c;
    }
};

// Whole pieces and what is left of one; addresses that are multiples of 16 bytes, and others.
TEST_P(Activation, EveryFunctionSizeAndAddress) {
    for (lattn_activation activation : {LATTN_IDENTITY, LATTN_SILU, LATTN_SIGMOID})
        for (int64_t count : {0, 1, 15, 64, 9001})
            for (int64_t offset : {0, 1})
                for (const bool of_gradient : {false, true}) {
                    ActivationCase c = target_case();
                    c.activation = activation;
                    c.count = count;
                    c.offset = offset;
                    c.of_gradient = of_gradient;
                    check(c);
                }
}

TEST_P(Activation, InPlace) {
    ActivationCase c = target_case();
    c.count = 9001;
    ActivationProblem problem(c);
    const std::vector<double> inputs = problem.input.values();
    Mirror mirror(device(), {}, {problem.input.storage()});
    lattn_activation_params params = problem.params();
    params.output = problem.input.data();
    mirror.activate(params);
    mirror.fetch();
    problem.expect(inputs, problem.input.values());
}

INSTANTIATE_TEST_SUITE_P(Devices, Activation, ::testing::ValuesIn(targets(kDeviceTypes)), target_name);

} // namespace
} // namespace lattn::test
