#include "gpu/on_device.h"

#include <cstdlib>

namespace lattn::test {
namespace {

bool cuda_is_required() {
    const char* value = std::getenv("LATTN_REQUIRE_CUDA");
    return value != nullptr && std::string(value) == "1";
}

} // namespace

std::string name_of(const Target& target) {
    std::string name = target.device == LATTN_CUDA ? "cuda_" : "cpu_";
    name += name_of(target.dtype);
    if (target.allow_tf32) name += "_tf32";
    if (target.device == LATTN_CUDA && target.cuda_path == LATTN_CUDA_PATH_GENERAL) name += "_general";
    if (target.device == LATTN_CUDA && target.cuda_path == LATTN_CUDA_PATH_HOPPER) name += "_hopper";
    return target.state_dtype == LATTN_FLOAT32 ? name : name + "_state_" + name_of(target.state_dtype);
}

void OnDevice::SetUp() {
    std::string reason;
    const lattn_device_type device = GetParam().device;
    if (describe(device, GetParam().dtype, LATTN_CUDA_PATH_AUTOMATIC, reason) == LATTN_OK) return;
    if (device == LATTN_CPU) FAIL() << reason;
    if (cuda_is_required()) FAIL() << reason << "; LATTN_REQUIRE_CUDA=1 demands a GPU";
    GTEST_SKIP() << reason;
}

void OnDevice::check_forward(const Case& c) {
    Problem problem(c);
    Mirror mirror(device(), problem);
    mirror.forward(problem.forward_params());
    mirror.fetch();
    problem.expect_forward();
    problem.expect_guards_intact();
}

template <typename ProblemOf, typename CaseOf>
void OnDevice::check_all(const CaseOf& c) {
    ProblemOf problem(c);
    Mirror mirror(device(), problem);
    mirror.forward(problem.forward_params());
    mirror.backward(problem.backward_params());
    mirror.fetch();
    problem.expect_forward();
    problem.expect_backward();
    problem.expect_guards_intact();
}

void OnDevice::check_forward_and_backward(const Case& c) {
    check_all<Problem>(c);
}

void OnDevice::check(const GatedNormCase& c) {
    check_all<GatedNormProblem>(c);
}

void OnDevice::check(const ActivationCase& c) {
    ActivationProblem problem(c);
    Mirror mirror(device(), {problem.input.storage(), problem.grad.storage()}, {problem.output.storage()});
    mirror.activate(problem.params());
    mirror.fetch();
    problem.expect_output();
}

void OnHopper::SetUp() {
    OnDevice::SetUp();
    if (IsSkipped() || HasFatalFailure()) return;
    std::string text;
    const lattn_status status = describe(GetParam().device, GetParam().dtype, LATTN_CUDA_PATH_HOPPER, text);
    if (status == LATTN_NOT_SUPPORTED) GTEST_SKIP() << text;
    ASSERT_EQ(LATTN_OK, status) << text;
}

} // namespace lattn::test
