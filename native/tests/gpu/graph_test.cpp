// Calls recorded as a CUDA graph and replayed: nothing of them may depend on the host while the graph runs.
#include "gpu/on_device.h"

namespace lattn::test {
namespace {

constexpr const char* kNoGraphs = "no CUDA graphs here";
constexpr int kReplays = 3;

class Graph : public OnDevice {};

TEST_P(Graph, DecodeSteps) {
    for (int64_t tokens : {1, 4}) {
        DecodeCase c;
        c.dtype = GetParam().dtype;
        c.device_type = GetParam().device;
        c.d = c.e = 128;
        c.tokens = tokens;
        Decode eager(c), replayed(c);
        lattn_decode_params params = eager.params(), recorded = replayed.params();
        params.state_out = params.state_in;
        recorded.state_out = recorded.state_in;
        Mirror mirror(device(), eager, true), mirror_replayed(device(), replayed, true);
        // The first call loads the kernels.
        for (int call = 0; call < 1 + kReplays; ++call)
            ASSERT_EQ(LATTN_OK, mirror.decode(params)) << lattn_last_error();
        ASSERT_EQ(LATTN_OK, mirror_replayed.decode(recorded)) << lattn_last_error();
        const bool ran = device().replay(
            [&] { EXPECT_EQ(LATTN_OK, mirror_replayed.decode(recorded)) << lattn_last_error(); }, kReplays);
        mirror.fetch();
        mirror_replayed.fetch();
        if (!ran) GTEST_SKIP() << kNoGraphs;
        EXPECT_EQ(eager.output.bytes(), replayed.output.bytes());
        EXPECT_EQ(eager.state_in.bytes(), replayed.state_in.bytes());
    }
}

TEST_P(Graph, Forward) {
    Case c = target_case(sizes_of(2, 2, 2, 2048 + 70, 64, 64, 256));
    c.backward = false;
    Problem eager(c), replayed(c);
    Mirror mirror(device(), eager), mirror_replayed(device(), replayed);
    mirror.forward(eager.forward_params());
    const bool ran = device().replay([&] { mirror_replayed.forward(replayed.forward_params()); }, kReplays);
    mirror.fetch();
    mirror_replayed.fetch();
    if (!ran) GTEST_SKIP() << kNoGraphs;
    EXPECT_EQ(eager.output.bytes(), replayed.output.bytes());
    EXPECT_EQ(eager.states.bytes(), replayed.states.bytes());
}

TEST_P(Graph, GatedNorm) {
    GatedNormCase c;
    c.dtype = GetParam().dtype;
    c.device_type = GetParam().device;
    c.tokens = 300;
    c.head_dim = 128;
    GatedNormProblem eager(c), replayed(c);
    Mirror mirror(device(), eager), mirror_replayed(device(), replayed);
    const auto run = [](Mirror& on, GatedNormProblem& problem) {
        on.forward(problem.forward_params());
        on.backward(problem.backward_params());
    };
    run(mirror, eager);
    const bool ran = device().replay([&] { run(mirror_replayed, replayed); }, kReplays);
    mirror.fetch();
    mirror_replayed.fetch();
    if (!ran) GTEST_SKIP() << kNoGraphs;
    for (std::size_t i = 0; i < eager.results().size(); ++i)
        EXPECT_EQ(eager.results()[i]->bytes(), replayed.results()[i]->bytes()) << "result " << i;
}

INSTANTIATE_TEST_SUITE_P(Devices, Graph, ::testing::ValuesIn(cuda_targets()), target_name);

} // namespace
} // namespace lattn::test
