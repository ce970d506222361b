// The C ABI: versions, sizes, what is refused, and that the message says why.
#include <gtest/gtest.h>

#include <cstring>
#include <limits>
#include <thread>

#include "problem.h"

namespace lattn::test {
namespace {

::testing::AssertionResult message_has(std::initializer_list<const char*> parts) {
    for (const char* part : parts)
        if (std::strstr(lattn_last_error(), part) == nullptr)
            return ::testing::AssertionFailure() << "\"" << lattn_last_error() << "\" lacks \"" << part << "\"";
    return ::testing::AssertionSuccess();
}

Case small_case() {
    Case c;
    c.sizes = {2, 2, 4, 100, 8, 12, 64, true};
    return c;
}

TEST(Abi, VersionAndStructSizes) {
    EXPECT_EQ(LATTN_ABI_VERSION, lattn_abi_version());
    EXPECT_EQ(sizeof(lattn_view), lattn_struct_size("lattn_view"));
    EXPECT_EQ(sizeof(lattn_state_view), lattn_struct_size("lattn_state_view"));
    EXPECT_EQ(sizeof(lattn_states_view), lattn_struct_size("lattn_states_view"));
    EXPECT_EQ(sizeof(lattn_problem), lattn_struct_size("lattn_problem"));
    EXPECT_EQ(sizeof(lattn_forward_params), lattn_struct_size("lattn_forward_params"));
    EXPECT_EQ(sizeof(lattn_backward_params), lattn_struct_size("lattn_backward_params"));
    EXPECT_EQ(sizeof(lattn_decode_params), lattn_struct_size("lattn_decode_params"));
    EXPECT_EQ(sizeof(lattn_support_query), lattn_struct_size("lattn_support_query"));
    EXPECT_EQ(sizeof(lattn_pool), lattn_struct_size("lattn_pool"));
    EXPECT_EQ(sizeof(lattn_kernel_info), lattn_struct_size("lattn_kernel_info"));
    EXPECT_EQ(0u, lattn_struct_size("lattn_nothing"));
    EXPECT_EQ(0u, lattn_struct_size(nullptr));
}

TEST(Abi, BuildInfoNamesWhatWasBuilt) {
    for (const char* key : {"version=", "compiler=", "cuda=", "architectures=", "cpu=", "openmp="})
        EXPECT_NE(nullptr, std::strstr(lattn_build_info(), key)) << lattn_build_info();
}

struct Refusal {
    const char* name;
    void (*spoil)(lattn_problem&);
    std::vector<const char*> message;
};

class RefusedProblem : public ::testing::TestWithParam<Refusal> {};

TEST_P(RefusedProblem, NamesTheValue) {
    Problem problem(small_case());
    lattn_forward_params forward = problem.forward_params();
    lattn_backward_params backward = problem.backward_params();
    GetParam().spoil(forward.problem);
    GetParam().spoil(backward.problem);
    uint64_t bytes = 0;
    const auto expect_refused = [&](lattn_status status) {
        EXPECT_EQ(LATTN_INVALID_ARGUMENT, status);
        for (const char* part : GetParam().message) EXPECT_TRUE(message_has({part}));
    };
    expect_refused(lattn_forward(&forward));
    expect_refused(lattn_backward(&backward));
    expect_refused(lattn_forward_workspace_size(&forward, &bytes));
    expect_refused(lattn_backward_workspace_size(&backward, &bytes));
    for (Tensor* result : problem.results())
        for (double value : result->values()) ASSERT_TRUE(std::isnan(value)) << "something was written";
}

INSTANTIATE_TEST_SUITE_P(
    Values, RefusedProblem,
    ::testing::Values(
        Refusal{"Batch", [](lattn_problem& p) { p.batch = -1; }, {"batch", "-1"}},
        Refusal{"Tokens", [](lattn_problem& p) { p.tokens = -5; }, {"tokens", "-5"}},
        Refusal{"NoKeyHeads", [](lattn_problem& p) { p.heads_qk = 0; }, {"heads_qk", "0"}},
        Refusal{"HeadsDoNotDivide", [](lattn_problem& p) { p.heads_qk = 3; }, {"heads_v = 4", "heads_qk = 3"}},
        Refusal{"HeadDimQk", [](lattn_problem& p) { p.head_dim_qk = 0; }, {"head_dim_qk", "0"}},
        Refusal{"HeadDimV", [](lattn_problem& p) { p.head_dim_v = -8; }, {"head_dim_v", "-8"}},
        Refusal{"BlockSizeZero", [](lattn_problem& p) { p.block_size = 0; }, {"block_size", "0", "64"}},
        Refusal{"BlockSizeOdd", [](lattn_problem& p) { p.block_size = 100; }, {"block_size", "100", "64"}},
        Refusal{"StateCount", [](lattn_problem& p) { p.state_count = 2; }, {"state_count", "2", "3"}},
        Refusal{"ScaleNan", [](lattn_problem& p) { p.scale = std::numeric_limits<double>::quiet_NaN(); }, {"scale"}},
        Refusal{"Dtype", [](lattn_problem& p) { p.dtype = LATTN_INT64; }, {"dtype", "int64"}},
        Refusal{"DeviceType", [](lattn_problem& p) { p.device_type = 7; }, {"device_type", "7"}},
        Refusal{"AllowTf32", [](lattn_problem& p) { p.allow_tf32 = 2; }, {"allow_tf32 = 2", "0 or 1"}}),
    [](const auto& refusal) { return std::string(refusal.param.name); });

TEST(Abi, WrongStructSizeIsRefused) {
    Problem problem(small_case());
    lattn_forward_params forward = problem.forward_params();
    forward.struct_size -= 8;
    EXPECT_EQ(LATTN_INVALID_ARGUMENT, lattn_forward(&forward));
    EXPECT_TRUE(message_has({"lattn_forward_params.struct_size", std::to_string(sizeof(forward)).c_str()}));
    lattn_backward_params backward = problem.backward_params();
    backward.struct_size = 0;
    EXPECT_EQ(LATTN_INVALID_ARGUMENT, lattn_backward(&backward));
    EXPECT_TRUE(message_has({"lattn_backward_params.struct_size", std::to_string(sizeof(backward)).c_str()}));
    lattn_decode_params decode = {};
    EXPECT_EQ(LATTN_INVALID_ARGUMENT, lattn_decode(&decode));
    EXPECT_TRUE(message_has({"lattn_decode_params.struct_size", std::to_string(sizeof(decode)).c_str()}));
}

TEST(Abi, NullIsRefused) {
    EXPECT_EQ(LATTN_INVALID_ARGUMENT, lattn_forward(nullptr));
    EXPECT_EQ(LATTN_INVALID_ARGUMENT, lattn_backward(nullptr));
    EXPECT_EQ(LATTN_INVALID_ARGUMENT, lattn_decode(nullptr));
    EXPECT_EQ(LATTN_INVALID_ARGUMENT, lattn_describe(nullptr, nullptr, 0));
    Problem problem(small_case());
    const lattn_forward_params good = problem.forward_params();
    const auto expect_refused = [](lattn_forward_params params, const char* name) {
        EXPECT_EQ(LATTN_INVALID_ARGUMENT, lattn_forward(&params)) << name;
        EXPECT_TRUE(message_has({name, "NULL"}));
    };
    lattn_forward_params params = good;
    params.q.data = nullptr;
    expect_refused(params, "q");
    params = good;
    params.k.data = nullptr;
    expect_refused(params, "k");
    params = good;
    params.v.data = nullptr;
    expect_refused(params, "v");
    params = good;
    params.output.data = nullptr;
    expect_refused(params, "output");
    params = good;
    params.decay_rate = nullptr;
    expect_refused(params, "decay_rate");
}

TEST(Abi, DecodeRefusesWhatItCannotMean) {
    lattn_decode_params params = {};
    params.struct_size = sizeof(params);
    params.batch = params.heads_qk = params.heads_v = params.head_dim_qk = params.head_dim_v = params.slot_count = 1;
    params.tokens = 1;
    params.scale = 1;
    params.dtype = LATTN_FLOAT32;
    params.state_dtype = LATTN_FLOAT64;
    EXPECT_EQ(LATTN_INVALID_ARGUMENT, lattn_decode(&params));
    EXPECT_TRUE(message_has({"state_dtype", "float64", "float32"}));
    params.state_dtype = LATTN_FLOAT32;
    params.slots = &params;
    params.slot_dtype = LATTN_FLOAT32;
    EXPECT_EQ(LATTN_INVALID_ARGUMENT, lattn_decode(&params));
    EXPECT_TRUE(message_has({"slot_dtype", "float32"}));
    params.slots = nullptr;
    params.accepted = &params;
    params.accepted_dtype = LATTN_FLOAT16;
    EXPECT_EQ(LATTN_INVALID_ARGUMENT, lattn_decode(&params));
    EXPECT_TRUE(message_has({"accepted_dtype", "float16"}));
    params.accepted = nullptr;
    for (int32_t tokens : {0, -1, LATTN_MAX_DECODE_TOKENS + 1}) {
        params.tokens = tokens;
        EXPECT_EQ(LATTN_INVALID_ARGUMENT, lattn_decode(&params));
        EXPECT_TRUE(message_has({("tokens = " + std::to_string(tokens)).c_str(), "from 1 to 16"}));
    }
    params.tokens = 1;
    params.reserved = 7;
    EXPECT_EQ(LATTN_INVALID_ARGUMENT, lattn_decode(&params));
    EXPECT_TRUE(message_has({"reserved = 7"}));
    params.reserved = 0;
    params.batch = 3;
    EXPECT_EQ(LATTN_INVALID_ARGUMENT, lattn_decode(&params));
    EXPECT_TRUE(message_has({"slot_count = 1", "batch = 3"}));
}

TEST(Abi, CpuNeedsNoWorkspace) {
    Problem problem(small_case());
    const lattn_forward_params forward = problem.forward_params();
    const lattn_backward_params backward = problem.backward_params();
    uint64_t bytes = 1;
    EXPECT_EQ(LATTN_OK, lattn_forward_workspace_size(&forward, &bytes));
    EXPECT_EQ(0u, bytes);
    bytes = 1;
    EXPECT_EQ(LATTN_OK, lattn_backward_workspace_size(&backward, &bytes));
    EXPECT_EQ(0u, bytes);
}

TEST(Abi, DescribeNamesTheCpuKernels) {
    lattn_support_query query = {};
    query.struct_size = sizeof(query);
    query.dtype = LATTN_FLOAT32;
    query.state_dtype = LATTN_FLOAT32;
    query.head_dim_qk = 5;
    query.head_dim_v = 7;
    for (lattn_operation operation : {LATTN_OP_FORWARD, LATTN_OP_BACKWARD, LATTN_OP_DECODE}) {
        query.operation = operation;
        char name[64] = {};
        EXPECT_EQ(LATTN_OK, lattn_describe(&query, name, sizeof(name))) << lattn_last_error();
        EXPECT_EQ(0, std::strncmp(name, "cpu_", 4)) << name;
        char cut[4] = {'x', 'x', 'x', 'x'};
        EXPECT_EQ(LATTN_OK, lattn_describe(&query, cut, 3));
        EXPECT_STREQ("cp", cut);
        EXPECT_EQ('x', cut[3]);
    }
}

TEST(Abi, DescribeRefusesATf32FlagOtherThan0And1) {
    lattn_support_query query = {};
    query.struct_size = sizeof(query);
    query.dtype = LATTN_FLOAT32;
    query.head_dim_qk = query.head_dim_v = 64;
    for (lattn_device_type device_type : {LATTN_CPU, LATTN_CUDA}) {
        query.device_type = device_type;
        for (int32_t flag : {-1, 2}) {
            query.allow_tf32 = flag;
            EXPECT_EQ(LATTN_INVALID_ARGUMENT, lattn_describe(&query, nullptr, 0));
            EXPECT_TRUE(message_has({("allow_tf32 = " + std::to_string(flag)).c_str(), "0 or 1"}));
        }
    }
    query.device_type = LATTN_CPU;
    query.allow_tf32 = 1;
    EXPECT_EQ(LATTN_OK, lattn_describe(&query, nullptr, 0)) << lattn_last_error();
}

TEST(Abi, ErrorsBelongToTheirThread) {
    EXPECT_EQ(LATTN_INVALID_ARGUMENT, lattn_forward(nullptr));
    const std::string here = lattn_last_error();
    std::string there = "not run";
    std::thread([&there] { there = lattn_last_error(); }).join();
    EXPECT_EQ("", there);
    EXPECT_EQ(here, lattn_last_error());
}

// Sizes whose scratch no machine has.
TEST(Abi, LackOfMemoryIsAStatus) {
    float element = 0;
    lattn_forward_params params = {};
    params.struct_size = sizeof(params);
    params.problem.batch = params.problem.heads_qk = params.problem.heads_v = 1;
    params.problem.head_dim_qk = params.problem.head_dim_v = int64_t{1} << 25;
    params.problem.tokens = 1;
    params.problem.block_size = 64;
    params.problem.state_count = 1;
    params.problem.scale = 1;
    params.problem.dtype = LATTN_FLOAT32;
    params.q.data = params.k.data = params.v.data = params.output.data = &element;
    params.decay_rate = &element;
    EXPECT_EQ(LATTN_OUT_OF_MEMORY, lattn_forward(&params));
    EXPECT_TRUE(message_has({"memory"}));
}

} // namespace
} // namespace lattn::test
