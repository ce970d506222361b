// Streams beside that of the caller.
#include <cstring>
#include <thread>

#include "gpu/on_device.h"

namespace lattn::test {
namespace {

class SideStream : public OnDevice {
protected:
    void* fork(void* stream) {
        void* side = nullptr;
        EXPECT_EQ(LATTN_OK, lattn_fork_stream(0, stream, &side)) << lattn_last_error();
        return side;
    }

    void join(void* stream, void* side) {
        EXPECT_EQ(LATTN_OK, lattn_join_stream(0, stream, side)) << lattn_last_error();
    }
};

// Each activation reads what the one before it wrote, on the other stream.
TEST_P(SideStream, KeepsTheOrderOfForksAndJoins) {
    constexpr int kSteps = 40;
    ActivationCase c;
    c.dtype = GetParam().dtype;
    c.device_type = GetParam().device;
    c.activation = LATTN_SIGMOID;
    c.count = 100000;
    ActivationProblem problem(c), expected(c);
    Mirror mirror(device(), {}, {problem.input.storage()}), in_order(device(), {}, {expected.input.storage()});
    lattn_activation_params params = problem.params(), expected_params = expected.params();
    params.output = problem.input.data();
    expected_params.output = expected.input.data();
    for (int step = 0; step < kSteps; ++step) {
        mirror.activate(params);
        void* const side = fork(device().stream());
        mirror.activate(params, side);
        join(device().stream(), side);
        in_order.activate(expected_params);
        in_order.activate(expected_params);
    }
    mirror.fetch();
    in_order.fetch();
    EXPECT_EQ(expected.input.bytes(), problem.input.bytes());
}

TEST_P(SideStream, IsUsedAgainAndBelongsToItsStreamAndThread) {
    void* const stream = device().stream();
    void* const first = fork(stream);
    void* const second = fork(stream);
    void* const of_default = fork(nullptr);
    join(stream, first);
    void* of_thread = nullptr;
    std::thread([&] { of_thread = fork(stream); }).join();
    void* const again = fork(stream);
    if (device().multiprocessors() >= 64) { // an emulated GPU has one stream
        EXPECT_EQ(first, again);
        EXPECT_NE(first, second);
        EXPECT_NE(first, of_thread);
        EXPECT_NE(second, of_default);
        EXPECT_EQ(LATTN_INVALID_ARGUMENT, lattn_join_stream(0, nullptr, second));
        EXPECT_NE(nullptr, std::strstr(lattn_last_error(), "is not forked from")) << lattn_last_error();
    }
    std::thread([&] { join(stream, again); }).join();
    join(stream, second);
    join(stream, of_thread);
    join(nullptr, of_default);
}

TEST_P(SideStream, HasTheMultiprocessorsOfItsDevice) {
    int32_t count = 0;
    EXPECT_EQ(LATTN_OK, lattn_multiprocessor_count(0, &count)) << lattn_last_error();
    EXPECT_GT(count, 0);
    EXPECT_NE(LATTN_OK, lattn_multiprocessor_count(-1, &count));
}

TEST_P(SideStream, IsTheStreamItselfWhileItIsRecorded) {
    ActivationCase c;
    c.dtype = GetParam().dtype;
    c.device_type = GetParam().device;
    c.count = 1000;
    ActivationProblem problem(c);
    Mirror mirror(device(), {problem.input.storage()}, {problem.output.storage()});
    mirror.activate(problem.params());
    const bool ran = device().replay(
        [&] {
            void* const side = fork(device().stream());
            EXPECT_EQ(device().stream(), side);
            mirror.activate(problem.params(), side);
            join(device().stream(), side);
        },
        2);
    mirror.fetch();
    if (!ran) GTEST_SKIP() << "no CUDA graphs here";
    problem.expect_output();
}

INSTANTIATE_TEST_SUITE_P(Devices, SideStream, ::testing::ValuesIn(cuda_targets()), target_name);

} // namespace
} // namespace lattn::test
