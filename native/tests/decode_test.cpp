// lattn_decode on the CPU against the float64 recurrence of one token.
#include <gtest/gtest.h>

#include "decode_problem.h"

namespace lattn::test {
namespace {

void check_out_of_place(const DecodeCase& c, lattn_dtype slot_dtype = LATTN_INT64) {
    Decode decode(c);
    const lattn_decode_params params = decode.params(slot_dtype);
    const std::vector<double> before = decode.state_in.values(), untouched = decode.state_out.values();
    const std::vector<unsigned char> input = decode.state_in.storage();
    ASSERT_EQ(LATTN_OK, lattn_decode(&params)) << lattn_last_error();
    decode.expect(before, decode.state_out.values(), untouched);
    decode.expect_guards_intact();
    EXPECT_EQ(input, decode.state_in.storage()) << c;
}

void check_in_place(const DecodeCase& c) {
    Decode decode(c);
    lattn_decode_params params = decode.params();
    params.state_out = params.state_in;
    const std::vector<double> before = decode.state_in.values();
    ASSERT_EQ(LATTN_OK, lattn_decode(&params)) << lattn_last_error();
    decode.expect(before, decode.state_in.values(), before);
    decode.expect_guards_intact();
}

struct Types {
    lattn_dtype dtype;
    lattn_dtype state_dtype;
};

class DecodeTypes : public ::testing::TestWithParam<Types> {
protected:
    DecodeCase with_types() const {
        DecodeCase c;
        c.dtype = GetParam().dtype;
        c.state_dtype = GetParam().state_dtype;
        return c;
    }
};

TEST_P(DecodeTypes, EveryHeadSize) {
    for (int64_t d : {1, 5, 17, 80, 128})
        for (int64_t e : {1, 7, 64, 65, 200}) {
            DecodeCase c = with_types();
            c.d = d;
            c.e = e;
            check_out_of_place(c);
            check_in_place(c);
        }
}

TEST_P(DecodeTypes, EveryLayout) {
    for (Layout layout : {Layout::kTokenMajor, Layout::kPadded, Layout::kReversed}) {
        DecodeCase c = with_types();
        c.layout = c.state_layout = layout;
        check_out_of_place(c);
        check_in_place(c);
    }
}

TEST_P(DecodeTypes, GroupedHeads) {
    DecodeCase c = with_types();
    c.heads_qk = 2;
    c.heads_v = 6;
    check_in_place(c);
}

TEST_P(DecodeTypes, PaddingAndSlotTypes) {
    for (lattn_dtype slot_dtype : {LATTN_INT32, LATTN_INT64}) {
        DecodeCase c = with_types();
        c.slots = {-1, 5, -1, 2, -1};
        check_out_of_place(c, slot_dtype);
        c.slots = {-1, -1};
        check_out_of_place(c, slot_dtype);
    }
}

TEST_P(DecodeTypes, SlotsAbsent) {
    DecodeCase c = with_types();
    c.slots = {0, 1, 2, 3};
    Decode decode(c);
    lattn_decode_params params = decode.params();
    params.slots = nullptr;
    params.slot_dtype = 0;
    const std::vector<double> before = decode.state_in.values(), untouched = decode.state_out.values();
    ASSERT_EQ(LATTN_OK, lattn_decode(&params)) << lattn_last_error();
    decode.expect(before, decode.state_out.values(), untouched);
}

TEST_P(DecodeTypes, SlotOutOfRangeWritesNothing) {
    for (int64_t bad : {int64_t{6}, int64_t{-2}, int64_t{1000}, std::numeric_limits<int64_t>::min()})
        for (lattn_dtype slot_dtype : {LATTN_INT32, LATTN_INT64}) {
            if (slot_dtype == LATTN_INT32 && bad < std::numeric_limits<int32_t>::min()) continue;
            DecodeCase c = with_types();
            c.slots = {4, 0, bad};
            Decode decode(c);
            const lattn_decode_params params = decode.params(slot_dtype);
            const std::vector<unsigned char> output = decode.output.storage(), pool = decode.state_out.storage();
            EXPECT_EQ(LATTN_INVALID_ARGUMENT, lattn_decode(&params));
            EXPECT_NE(nullptr, std::strstr(lattn_last_error(), "slots[2]")) << lattn_last_error();
            EXPECT_NE(nullptr, std::strstr(lattn_last_error(), std::to_string(bad).c_str())) << lattn_last_error();
            EXPECT_NE(nullptr, std::strstr(lattn_last_error(), "slot_count = 6")) << lattn_last_error();
            EXPECT_EQ(output, decode.output.storage());
            EXPECT_EQ(pool, decode.state_out.storage());
        }
}

TEST_P(DecodeTypes, EmptyBatch) {
    DecodeCase c = with_types();
    c.slots = {};
    Decode decode(c);
    lattn_decode_params params = decode.params();
    params.q = params.k = params.v = params.output = {};
    params.state_in = params.state_out = {};
    params.decay_rate = nullptr;
    EXPECT_EQ(LATTN_OK, lattn_decode(&params)) << lattn_last_error();
}

TEST_P(DecodeTypes, ManyRowsAreEachTheirOwn) {
    DecodeCase c = with_types();
    c.heads_qk = c.heads_v = 4;
    c.d = c.e = 64;
    c.slot_count = 40;
    c.slots.clear();
    for (int64_t row = 0; row < 32; ++row) c.slots.push_back(39 - row);
    check_in_place(c);
    Decode together(c);
    const lattn_decode_params all = together.params();
    ASSERT_EQ(LATTN_OK, lattn_decode(&all)) << lattn_last_error();
    Decode alone(c);
    for (int64_t row = 0; row < 32; ++row) {
        lattn_decode_params one = alone.params();
        const auto skip = [&](lattn_view& view) {
            view.data = static_cast<char*>(view.data) + row * view.stride_b * static_cast<int64_t>(bytes_of(c.dtype));
        };
        skip(one.q);
        skip(one.k);
        skip(one.v);
        skip(one.output);
        one.batch = 1;
        one.slots = static_cast<const int64_t*>(one.slots) + row;
        ASSERT_EQ(LATTN_OK, lattn_decode(&one)) << lattn_last_error();
    }
    EXPECT_EQ(together.output.bytes(), alone.output.bytes());
    EXPECT_EQ(together.state_out.bytes(), alone.state_out.bytes());
}

TEST_P(DecodeTypes, SeveralTokens) {
    for (int64_t tokens : {2, 16})
        for (Layout layout : {Layout::kContiguous, Layout::kTokenMajor, Layout::kReversed}) {
            DecodeCase c = with_types();
            c.tokens = tokens;
            c.layout = c.state_layout = layout;
            c.heads_v = 4;
            c.e = 65;
            check_out_of_place(c);
            check_in_place(c);
            c.with_state = false;
            check_out_of_place(c);
            c.with_state = true;
            c.with_output = false;
            check_out_of_place(c);
            c.accepted = {1, 0, tokens};
            check_out_of_place(c, LATTN_INT32);
            c.with_output = true;
            check_in_place(c);
        }
}

// A step that is not stored, and one that is stored without output.
TEST_P(DecodeTypes, ResultsOfOneTokenThatAreNotWanted) {
    DecodeCase c = with_types();
    c.with_state = false;
    check_out_of_place(c);
    c.with_output = false;
    check_out_of_place(c);
    c.with_state = true;
    check_out_of_place(c);
    check_in_place(c);
}

TEST_P(DecodeTypes, AcceptedOutOfRangeWritesNothing) {
    for (int64_t bad : {int64_t{4}, int64_t{-1}, std::numeric_limits<int64_t>::max()}) {
        DecodeCase c = with_types();
        c.tokens = 3;
        c.accepted = {3, 0, bad};
        Decode decode(c);
        const lattn_decode_params params = decode.params();
        const std::vector<unsigned char> output = decode.output.storage(), pool = decode.state_out.storage();
        EXPECT_EQ(LATTN_INVALID_ARGUMENT, lattn_decode(&params));
        EXPECT_EQ("accepted[2] = " + std::to_string(bad) + " must be from 0 to tokens = 3",
                  std::string(lattn_last_error()));
        EXPECT_EQ(output, decode.output.storage());
        EXPECT_EQ(pool, decode.state_out.storage());
    }
}

INSTANTIATE_TEST_SUITE_P(Types, DecodeTypes,
                         ::testing::Values(Types{LATTN_FLOAT32, LATTN_FLOAT32}, Types{LATTN_FLOAT32, LATTN_BFLOAT16},
                                           Types{LATTN_FLOAT32, LATTN_FLOAT16}, Types{LATTN_BFLOAT16, LATTN_FLOAT32},
                                           Types{LATTN_BFLOAT16, LATTN_BFLOAT16}, Types{LATTN_BFLOAT16, LATTN_FLOAT16},
                                           Types{LATTN_FLOAT16, LATTN_FLOAT32}, Types{LATTN_FLOAT16, LATTN_BFLOAT16},
                                           Types{LATTN_FLOAT16, LATTN_FLOAT16}, Types{LATTN_FLOAT64, LATTN_FLOAT64}),
                         [](const auto& types) {
                             return std::string(name_of(types.param.dtype)) + "_state_" +
                                    name_of(types.param.state_dtype);
                         });

// Decoding token after token is the same as prefill.
TEST(DecodeAfterPrefill, ContinuesTheSequence) {
    constexpr int64_t prompt = 100, generated = 30, d = 16, e = 24;
    Case c;
    c.sizes = {1, 1, 1, prompt + generated, d, e, 64, false};
    c.scale = 0.3;
    Problem whole(c);
    whole.run_forward();

    Problem parts(c);
    lattn_forward_params prefill = parts.forward_params();
    prefill.problem.tokens = prompt;
    ASSERT_EQ(LATTN_OK, lattn_forward(&prefill)) << lattn_last_error();
    for (int64_t token = prompt; token < prompt + generated; ++token) {
        lattn_decode_params step = {};
        step.struct_size = sizeof(step);
        step.batch = step.heads_qk = step.heads_v = step.slot_count = step.tokens = 1;
        step.head_dim_qk = d;
        step.head_dim_v = e;
        step.scale = c.scale;
        step.dtype = step.state_dtype = LATTN_FLOAT32;
        const auto token_of = [&](Tensor& tensor) {
            lattn_view view = tensor.view();
            view.data = static_cast<float*>(view.data) + token * view.stride_n;
            return view;
        };
        step.q = token_of(parts.q);
        step.k = token_of(parts.k);
        step.v = token_of(parts.v);
        step.output = token_of(parts.output);
        step.decay_rate = parts.rate.data();
        step.state_in = {parts.states.data(), 0, 0, e, 1};
        step.state_out = step.state_in;
        ASSERT_EQ(LATTN_OK, lattn_decode(&step)) << lattn_last_error();
    }
    EXPECT_TRUE(matches(parts.output.values(), whole.output.values(), LATTN_FLOAT32, e));
    EXPECT_TRUE(matches(parts.states.values(), whole.states.values(), LATTN_FLOAT32, d * e));
}

} // namespace
} // namespace lattn::test
