// The forward pass by the Hopper path: sizes, segments of 2048 tokens, and that neither the grid nor a cut between
// segments changes a bit.
#include <iterator>
#include <vector>

#include "gpu/on_device.h"

namespace lattn::test {
namespace {

constexpr int64_t kSegment = 2048; // tokens

class HopperForward : public OnHopper {};

TEST_P(HopperForward, EveryHeadSize) {
    for (int64_t d : {16, 64, 96, 128, 136, 192, 200, 256})
        for (int64_t e : {16, 64, 96, 128, 192, 256})
            for (int64_t tokens : {65, 200}) {
                Case c = hopper_case(sizes_of(1, 2, 2, tokens, d, e));
                c.rates = {0.002, 0.2};
                check_forward(c);
            }
}

TEST_P(HopperForward, EveryLength) {
    for (int64_t tokens : {1, 64, 65, 200, 2048, 2049, 4100, 6200})
        for (int64_t block_size : {64, 256, 2048}) {
            Case c = hopper_case(sizes_of(1, 1, 2, tokens, 128, 64, block_size));
            c.rates = {0.001, 0.03};
            c.history = block_size != 256;
            check_forward(c);
        }
}

TEST_P(HopperForward, SegmentsOfEveryHeadSize) {
    for (int64_t d : {16, 64, 96, 192, 256})
        for (int64_t e : {16, 96, 256}) {
            Case c = hopper_case(sizes_of(1, 1, 1, 2 * kSegment + 4, d, e, 256));
            c.rates = {0.0005};
            check_forward(c);
        }
}

TEST_P(HopperForward, EveryRate) {
    for (int64_t tokens : {int64_t{200}, kSegment + 70})
        for (bool history : {false, true}) {
            Case c = hopper_case(sizes_of(1, 5, 5, tokens, 64, 32, 64, false));
            c.rates = {0, 1e-4, 0.05, 1, 100};
            c.history = history;
            check_forward(c);
        }
}

// Fast heads forget within a segment, also where a state has no room in registers and there is no other segment.
TEST_P(HopperForward, FastHeadsForgetWithinASegment) {
    for (int64_t d : {64, 200})
        for (int64_t tokens : {kSegment - 100, kSegment + 1000}) {
            Case c = hopper_case(sizes_of(1, 3, 3, tokens, d, 16, 512));
            c.rates = {0.02, 0.3, 5};
            c.history = false;
            check_forward(c);
        }
}

TEST_P(HopperForward, EveryLayout) {
    for (int64_t tokens : {int64_t{100}, kSegment + 70}) {
        Case c = hopper_case(sizes_of(2, 2, 4, tokens, 24, 40));
        c.rates = {0.01, 0.1};
        c.qk_layout = c.v_layout = c.state_layout = c.output_layout = Layout::kTokenMajor;
        check_forward(c);
        // States are read and written element by element.
        for (Layout layout : {Layout::kPadded, Layout::kReversed}) {
            c.state_layout = layout;
            check_forward(c);
        }
        for (Layout layout : {Layout::kSharedBatch, Layout::kSharedHeads}) {
            c.qk_layout = c.v_layout = layout;
            check_forward(c);
        }
    }
}

// The CPU takes every layout.
TEST_P(HopperForward, RefusesWhatItCannotAddress) {
    for (Layout layout : {Layout::kPadded, Layout::kReversed, Layout::kSharedTokens}) {
        Case c = hopper_case(sizes_of(2, 2, 2, 100, 24, 40));
        c.qk_layout = layout;
        if (c.device_type == LATTN_CPU) {
            check_forward(c);
            continue;
        }
        Problem problem(c);
        const lattn_forward_params params = problem.forward_params();
        uint64_t bytes = 0;
        EXPECT_EQ(LATTN_NOT_SUPPORTED, lattn_forward_workspace_size(&params, &bytes));
        EXPECT_EQ(LATTN_NOT_SUPPORTED, lattn_forward(&params));
        EXPECT_NE(std::string::npos, std::string(lattn_last_error()).find("Hopper")) << lattn_last_error();
    }
}

// By the automatic choice the general scan takes what the Hopper path cannot, and nobody hears of a refusal.
TEST_P(HopperForward, WhatItCannotAddressIsLeftToTheGeneralScan) {
    for (Layout layout : {Layout::kPadded, Layout::kReversed, Layout::kSharedTokens}) {
        Case c = hopper_case(sizes_of(2, 2, 2, 100, 24, 40));
        c.cuda_path = LATTN_CUDA_PATH_AUTOMATIC;
        c.qk_layout = layout;
        const std::string said = lattn_last_error();
        check_forward(c);
        EXPECT_EQ(said, lattn_last_error());
    }
}

// The CPU allocates its own scratch.
TEST_P(HopperForward, RefusesAWorkspaceThatIsTooSmall) {
    const Case c = hopper_case(sizes_of(1, 1, 1, 2 * kSegment, 64, 16));
    if (c.device_type == LATTN_CPU) return;
    Problem problem(c);
    lattn_forward_params params = problem.forward_params();
    uint64_t bytes = 0;
    ASSERT_EQ(LATTN_OK, lattn_forward_workspace_size(&params, &bytes)) << lattn_last_error();
    ASSERT_GT(bytes, 0u);
    params.workspace = &bytes; // refused before it is looked at
    params.workspace_bytes = bytes - 1;
    EXPECT_EQ(LATTN_INVALID_ARGUMENT, lattn_forward(&params));
    EXPECT_NE(std::string::npos, std::string(lattn_last_error()).find(std::to_string(bytes))) << lattn_last_error();
    params.workspace = nullptr;
    params.workspace_bytes = bytes;
    EXPECT_EQ(LATTN_INVALID_ARGUMENT, lattn_forward(&params));
    EXPECT_NE(std::string::npos, std::string(lattn_last_error()).find("NULL")) << lattn_last_error();
}

TEST_P(HopperForward, GroupedHeads) {
    for (int64_t heads_qk : {1, 2, 3}) {
        Case c = hopper_case(sizes_of(2, heads_qk, 6, 130, 64, 96));
        c.rates = {0.01, 0.1, 0.3};
        check_forward(c);
    }
}

TEST_P(HopperForward, NoStatesAskedFor) {
    for (int64_t tokens : {int64_t{150}, kSegment + 2}) {
        Problem problem(hopper_case(sizes_of(1, 2, 2, tokens, 64, 64)));
        const std::vector<unsigned char> untouched = problem.states.storage();
        Mirror mirror(device(), problem);
        lattn_forward_params params = problem.forward_params();
        params.states = {};
        mirror.forward(params);
        mirror.fetch();
        problem.expect_output(reference::forward(problem.description().sizes, problem.reference_inputs()));
        EXPECT_EQ(untouched, problem.states.storage());
    }
}

// As many heads as multiprocessors: a CTA walks all segments of its sequence. Few heads: segments have CTAs of their
// own and keep their states in the workspace.
TEST_P(HopperForward, WholeSequencesAndSegmentsGiveTheSameBits) {
    const int64_t heads = device().multiprocessors();
    const int64_t shown[] = {0, heads / 2, heads - 1};
    for (int64_t d : {16, 128, 256}) {
        Case c = hopper_case(sizes_of(1, 1, heads, 2 * kSegment + 100, d, 16, kSegment, d == 128));
        c.rates = {0, 1e-4, 0.01, 1};
        Problem together(c), alone(c);
        Mirror mirror(device(), together), mirror_alone(device(), alone);
        mirror.forward(together.forward_params());
        for (int64_t head : shown) mirror_alone.forward(head_of(alone.forward_params(), head));
        if (c.device_type == LATTN_CUDA) {
            EXPECT_LT(mirror.workspace_bytes() / static_cast<uint64_t>(heads),
                      mirror_alone.workspace_bytes() / std::size(shown))
                << c;
        }
        mirror.fetch();
        mirror_alone.fetch();
        for (int64_t head : shown) {
            EXPECT_EQ(together.output.bytes_at(1, head), alone.output.bytes_at(1, head))
                << "head " << head << ": " << c;
            EXPECT_EQ(together.states.bytes_at(1, head), alone.states.bytes_at(1, head))
                << "head " << head << ": " << c;
        }
        together.expect_guards_intact();
        alone.expect_guards_intact();
    }
}

TEST_P(HopperForward, WholeSequencesOfManyHeads) {
    const int64_t heads = (device().multiprocessors() + 2) / 3;
    Case c = hopper_case(sizes_of(3, 1, heads, kSegment + 70, 32, 16, 256));
    c.rates = {0, 0.0003, 0.01};
    check_forward(c);
}

// A call of several segments equals two calls, the first one's final state being the second one's history.
TEST_P(HopperForward, InPartsGivesTheSameBits) {
    const int64_t many = device().multiprocessors();
    struct Cut {
        int64_t heads, d, at;
    };
    for (const Cut& cut : {Cut{2, 64, kSegment}, Cut{2, 64, 2 * kSegment}, Cut{2, 256, kSegment},
                           Cut{many, 64, kSegment}, Cut{many, 136, 2 * kSegment}}) {
        Case c = hopper_case(sizes_of(1, 1, cut.heads, 2 * kSegment + 4, cut.d, 16, 64, false));
        c.rates = {0.0002, 0.03};
        Problem whole(c), parts(c);
        Tensor first_state(LATTN_FLOAT32, parts.states.sizes(), c.state_layout, Tensor::Kind::kState);
        first_state.poison();

        lattn_forward_params first = tokens_of(parts.forward_params(), 0, cut.at);
        first.states = first_state.states_view();
        lattn_forward_params second = tokens_of(parts.forward_params(), cut.at, c.sizes.tokens - cut.at);
        second.history = final_state(first);

        Mirror mirror(device(), whole), mirror_of_parts(device(), parts, {&first_state});
        mirror.forward(whole.forward_params());
        mirror_of_parts.forward(first);
        mirror_of_parts.forward(second);
        mirror.fetch();
        mirror_of_parts.fetch();
        EXPECT_EQ(whole.output.bytes(), parts.output.bytes()) << "cut at " << cut.at << ": " << c;
        EXPECT_EQ(whole.states.bytes(), parts.states.bytes()) << "cut at " << cut.at << ": " << c;
        EXPECT_TRUE(first_state.guards_intact());
        parts.expect_guards_intact();
    }
}

// Of so many heads and segments that the sums have CTAs of 128 rows; half of the segments have not.
TEST_P(HopperForward, SumsThatFillTheGpuGiveTheSameBits) {
    if (device().multiprocessors() < 64) GTEST_SKIP() << "needs a whole GPU";
    Case c = hopper_case(sizes_of(1, 1, device().multiprocessors() / 16, 20 * kSegment, 128, 128, 64, false));
    c.rates = {0, 0.002, 0.01, 0.05, 0.7};
    Problem problem(c);
    Tensor first_state(LATTN_FLOAT32, problem.states.sizes(), c.state_layout, Tensor::Kind::kState);
    first_state.poison();
    const lattn_forward_params whole = problem.forward_params();
    const lattn_forward_params first = [&] {
        lattn_forward_params params = tokens_of(whole, 0, c.sizes.tokens / 2);
        params.states = first_state.states_view();
        return params;
    }();
    lattn_forward_params second = tokens_of(whole, c.sizes.tokens / 2, c.sizes.tokens / 2);
    second.history = final_state(first);

    Mirror mirror(device(), problem, {&first_state});
    mirror.forward(whole);
    mirror.fetch();
    const auto output = problem.output.bytes();
    const auto states = problem.states.bytes();
    mirror.forward(first);
    mirror.forward(second);
    mirror.fetch();
    EXPECT_TRUE(output == problem.output.bytes()) << c;
    EXPECT_TRUE(states == problem.states.bytes()) << c;
}

// Scores and states of ordinary magnitude overflow float16, so its kernel must not keep them in it.
TEST_P(HopperForward, ScoresAndStatesBeyondFloat16) {
    const auto multiply = [](Tensor& tensor, double factor) {
        std::vector<double> values = tensor.values();
        for (double& value : values) value *= factor;
        tensor.assign(values);
    };
    const auto check = [&](Problem& problem) {
        Mirror mirror(device(), problem);
        mirror.forward(problem.forward_params());
        mirror.fetch();
        problem.expect_forward();
    };
    for (int64_t d : {128, 256}) {
        Case c = hopper_case(sizes_of(1, 2, 2, 150, d, 64));
        c.rates = {1};
        c.scale = 1;
        c.history = false;
        Problem scores(c); // up to 900 D
        for (Tensor* tensor : {&scores.q, &scores.k})
            tensor->assign(std::vector<double>(static_cast<std::size_t>(tensor->count()), 30));
        multiply(scores.v, 0.01);
        check(scores);

        c.rates = {1e-3};
        c.history = true;
        Problem states(c);
        multiply(states.history, 1e6);
        multiply(states.q, 1e-3);
        check(states);
    }
}

TEST_P(HopperForward, TheSameCallTwice) {
    for (int64_t batch : {1, 30}) {
        const Case c = hopper_case(sizes_of(batch, 2, 2, kSegment + 200, 96, 80));
        Problem first(c), second(c);
        for (Problem* problem : {&first, &second}) {
            Mirror mirror(device(), *problem);
            mirror.forward(problem->forward_params());
            mirror.fetch();
        }
        EXPECT_EQ(first.output.bytes(), second.output.bytes()) << c;
        EXPECT_EQ(first.states.bytes(), second.states.bytes()) << c;
    }
}

// What depends on timing shows here: tokens come from L2, and every role waits for another one at times.
TEST_P(HopperForward, TheSameCallAgainAndAgain) {
    constexpr int kCalls = 12;
    const Case c = hopper_case(sizes_of(1, 16, 16, 4 * kSegment, 128, 128));
    Problem problem(c);
    Mirror mirror(device(), problem);
    std::vector<unsigned char> first;
    for (int call = 0; call < kCalls; ++call) {
        mirror.forward(problem.forward_params());
        mirror.fetch();
        if (call == 0) first = problem.output.bytes();
        ASSERT_EQ(problem.output.bytes(), first) << "call " << call << ", " << c;
    }
}

INSTANTIATE_TEST_SUITE_P(Devices, HopperForward, ::testing::ValuesIn(targets(kHopperTypes)), target_name);

} // namespace
} // namespace lattn::test
