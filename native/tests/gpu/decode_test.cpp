// lattn_decode over the range of its arguments.
#include <cstring>

#include "gpu/on_device.h"

namespace lattn::test {
namespace {

class DecodeStep : public OnDevice {
protected:
    DecodeCase target_case() const {
        DecodeCase c;
        c.dtype = GetParam().dtype;
        c.state_dtype = GetParam().state_dtype;
        c.device_type = GetParam().device;
        return c;
    }

    void check_out_of_place(const DecodeCase& c, lattn_dtype slot_dtype = LATTN_INT64) {
        Decode decode(c);
        lattn_decode_params params = decode.params(slot_dtype);
        check(decode, params, decode.state_in.values(), decode.state_out.values(), false);
    }

    void check_in_place(const DecodeCase& c) {
        Decode decode(c);
        lattn_decode_params params = decode.params();
        params.state_out = params.state_in;
        const std::vector<double> before = decode.state_in.values();
        check(decode, params, before, before, true);
    }

    void check(Decode& decode, const lattn_decode_params& params, const std::vector<double>& before,
               const std::vector<double>& untouched, bool in_place) {
        Mirror mirror(device(), decode, in_place);
        ASSERT_EQ(LATTN_OK, mirror.decode(params)) << lattn_last_error();
        mirror.fetch();
        decode.expect(before, in_place ? decode.state_in.values() : decode.state_out.values(), untouched);
        decode.expect_guards_intact();
    }
};

TEST_P(DecodeStep, EveryHeadSize) {
    for (int64_t d : {16, 40, 80, 128, 256})
        for (int64_t e : {16, 24, 64, 72, 128, 200, 256}) {
            DecodeCase c = target_case();
            c.d = d;
            c.e = e;
            check_out_of_place(c);
            check_in_place(c);
        }
}

TEST_P(DecodeStep, EveryLayout) {
    for (Layout layout : {Layout::kTokenMajor, Layout::kPadded, Layout::kReversed}) {
        DecodeCase c = target_case();
        c.layout = c.state_layout = layout;
        check_out_of_place(c);
        check_in_place(c);
    }
}

TEST_P(DecodeStep, GroupedHeads) {
    DecodeCase c = target_case();
    c.heads_v = 6;
    check_in_place(c);
}

TEST_P(DecodeStep, PaddingAndSlotTypes) {
    for (lattn_dtype slot_dtype : {LATTN_INT32, LATTN_INT64}) {
        DecodeCase c = target_case();
        c.slots = {-1, 5, -1, 2, -1};
        check_out_of_place(c, slot_dtype);
        c.slots = {-1, -1};
        check_out_of_place(c, slot_dtype);
    }
}

TEST_P(DecodeStep, SlotsAbsent) {
    DecodeCase c = target_case();
    c.slots = {0, 1, 2, 3};
    Decode decode(c);
    lattn_decode_params params = decode.params();
    params.slots = nullptr;
    params.slot_dtype = 0;
    check(decode, params, decode.state_in.values(), decode.state_out.values(), false);
}

// The CPU refuses the call; CUDA, which cannot look before it starts, treats the row as padding.
TEST_P(DecodeStep, SlotOutOfRangeTouchesNoState) {
    for (int64_t bad : {6, -2, 1000, 1 << 30}) {
        DecodeCase c = target_case();
        c.slots = {4, bad, 0};
        if (c.device_type == LATTN_CUDA) {
            check_out_of_place(c);
            continue;
        }
        Decode decode(c);
        const std::vector<unsigned char> output = decode.output.storage(), pool = decode.state_out.storage();
        const lattn_decode_params params = decode.params();
        Mirror mirror(device(), decode, false);
        EXPECT_EQ(LATTN_INVALID_ARGUMENT, mirror.decode(params));
        mirror.fetch();
        EXPECT_EQ(output, decode.output.storage());
        EXPECT_EQ(pool, decode.state_out.storage());
    }
}

TEST_P(DecodeStep, EmptyBatch) {
    DecodeCase c = target_case();
    c.slots = {};
    Decode decode(c);
    lattn_decode_params params = decode.params();
    check(decode, params, decode.state_in.values(), decode.state_out.values(), false);
}

// A slot far beyond 32 bits of elements: the pool's first state would lie so far before the memory there is.
TEST_P(DecodeStep, SlotStridesNeed64Bits) {
    for (int64_t stride : {(int64_t{1} << 33) + 16, -(int64_t{1} << 33) - 16}) {
        DecodeCase c = target_case();
        c.slots = {5};
        Decode decode(c);
        const std::vector<double> before = decode.state_in.values();
        lattn_decode_params params = decode.params();
        params.state_out = params.state_in;
        Mirror mirror(device(), decode, true);
        mirror.relocate(params);
        for (lattn_state_view* state : {&params.state_in, &params.state_out}) {
            const uint64_t moved = static_cast<uint64_t>(5 * (state->stride_b - stride)) * bytes_of(c.state_dtype);
            state->data = reinterpret_cast<void*>(reinterpret_cast<uint64_t>(state->data) + moved);
            state->stride_b = stride;
        }
        ASSERT_EQ(LATTN_OK, lattn_decode(&params)) << lattn_last_error();
        mirror.fetch();
        decode.expect(before, decode.state_in.values(), before);
        decode.expect_guards_intact();
    }
}

TEST_P(DecodeStep, ManyRowsAreEachTheirOwn) {
    DecodeCase c = target_case();
    c.heads_qk = c.heads_v = 4;
    c.d = c.e = 64;
    c.slot_count = 40;
    c.slots.clear();
    for (int64_t row = 0; row < 32; ++row) c.slots.push_back(39 - row);
    check_in_place(c);
    Decode together(c), alone(c);
    const lattn_decode_params all = together.params(), each = alone.params();
    Mirror mirror(device(), together, false), mirror_alone(device(), alone, false);
    ASSERT_EQ(LATTN_OK, mirror.decode(all)) << lattn_last_error();
    for (int64_t row = 0; row < 32; ++row) {
        lattn_decode_params one = each;
        for (lattn_view* view : {&one.q, &one.k, &one.v, &one.output})
            advance(view->data, row * view->stride_b, c.dtype);
        one.batch = 1;
        one.slots = static_cast<const int64_t*>(one.slots) + row;
        ASSERT_EQ(LATTN_OK, mirror_alone.decode(one)) << lattn_last_error();
    }
    mirror.fetch();
    mirror_alone.fetch();
    EXPECT_EQ(together.output.bytes(), alone.output.bytes());
    EXPECT_EQ(together.state_out.bytes(), alone.state_out.bytes());
}

// A slot that the call before writes: a kernel that starts during that call may have read another one before.
TEST_P(DecodeStep, SlotWrittenByTheCallBefore) {
    DecodeCase c = target_case();
    c.slots.assign(64, -1); // so the outputs are zeros
    Decode writer(c);
    c.slots = {0};
    Decode reader(c);
    const std::vector<double> before = reader.state_in.values();
    const lattn_decode_params write = writer.params();
    lattn_decode_params read = reader.params();
    read.state_out = read.state_in;
    void* slot = write.output.data;
    advance(slot, 63 * write.output.stride_b, c.dtype);
    const int64_t stale = 3;
    std::memcpy(slot, &stale, sizeof(stale));
    Mirror mirror_writer(device(), writer, false), mirror(device(), reader, true);
    mirror.relocate(read);
    read.slots = mirror_writer.at(slot);
    ASSERT_EQ(LATTN_OK, mirror_writer.decode(write)) << lattn_last_error();
    ASSERT_EQ(LATTN_OK, lattn_decode(&read)) << lattn_last_error();
    mirror_writer.fetch();
    mirror.fetch();
    reader.expect(before, reader.state_in.values(), before);
    reader.expect_guards_intact();
}

// Several tokens of a row at once.
class DecodeTokens : public DecodeStep {
protected:
    DecodeCase tokens_case(int64_t tokens) const {
        DecodeCase c = target_case();
        c.tokens = tokens;
        return c;
    }

    // Step `token` of every row of a call of several tokens.
    static lattn_decode_params step_of(lattn_decode_params params, int64_t token) {
        for (lattn_view* view : {&params.q, &params.k, &params.v, &params.output})
            if (view->data != nullptr) advance(view->data, token * view->stride_n, params.dtype);
        params.tokens = 1;
        params.accepted = nullptr;
        return params;
    }
};

TEST_P(DecodeTokens, EveryCountAndResult) {
    for (int64_t tokens : {1, 2, 3, 8, 16}) {
        DecodeCase c = tokens_case(tokens);
        c.heads_v = 4;
        check_in_place(c);
        check_out_of_place(c);
        c.with_state = false;
        check_out_of_place(c, LATTN_INT32);
        c.with_state = true;
        c.with_output = false;
        check_out_of_place(c);
        check_in_place(c);
        c.with_state = false;
        check_out_of_place(c);
    }
}

TEST_P(DecodeTokens, EveryHeadSize) {
    for (int64_t d : {16, 136, 256})
        for (int64_t e : {16, 72, 256}) {
            DecodeCase c = tokens_case(3);
            c.d = d;
            c.e = e;
            check_out_of_place(c);
        }
}

TEST_P(DecodeTokens, EveryLayout) {
    for (Layout layout : {Layout::kTokenMajor, Layout::kPadded, Layout::kReversed}) {
        DecodeCase c = tokens_case(3);
        c.layout = c.state_layout = layout;
        check_out_of_place(c);
        check_in_place(c);
    }
}

TEST_P(DecodeTokens, AcceptedTokensOnly) {
    for (lattn_dtype index_dtype : {LATTN_INT32, LATTN_INT64}) {
        DecodeCase c = tokens_case(4);
        c.slots = {4, 0, -1, 3, 1};
        c.accepted = {0, 4, 2, 1, 3};
        check_out_of_place(c, index_dtype);
        check_in_place(c);
        c.with_output = false;
        check_out_of_place(c, index_dtype);
        c.tokens = 1;
        c.accepted = {1, 0, 1, 0, 1};
        check_in_place(c);
    }
}

// The CPU refuses the call; CUDA takes as many as there are.
TEST_P(DecodeTokens, AcceptedOutOfRange) {
    for (int64_t bad : {-1, 5, 1 << 30}) {
        DecodeCase c = tokens_case(4);
        c.accepted = {2, bad, 3};
        if (c.device_type == LATTN_CUDA) {
            check_out_of_place(c);
            continue;
        }
        Decode decode(c);
        const std::vector<unsigned char> output = decode.output.storage(), pool = decode.state_out.storage();
        const lattn_decode_params params = decode.params();
        Mirror mirror(device(), decode, false);
        EXPECT_EQ(LATTN_INVALID_ARGUMENT, mirror.decode(params));
        const std::string expected = "accepted[1] = " + std::to_string(bad) + " must be from 0 to tokens = 4";
        EXPECT_EQ(expected, lattn_last_error());
        mirror.fetch();
        EXPECT_EQ(output, decode.output.storage());
        EXPECT_EQ(pool, decode.state_out.storage());
    }
}

TEST_P(DecodeTokens, SlotOutOfRangeTouchesNoState) {
    if (GetParam().device == LATTN_CPU) GTEST_SKIP() << "the CPU refuses the call: DecodeStep";
    DecodeCase c = tokens_case(4);
    c.slots = {4, 6, -7};
    check_out_of_place(c);
    check_in_place(c);
}

// With fp32 states, where nothing is rounded between tokens, bitwise: verifying is decoding, and so is committing any
// number of tokens. Other states are rounded by each step, so there outputs agree with the first step alone.
TEST_P(DecodeTokens, AreTheStepsOneByOne) {
    for (int64_t d : {72, 200}) {
        DecodeCase c = tokens_case(6);
        c.d = d;
        c.e = 72;
        const bool exact = c.state_dtype == LATTN_FLOAT32;
        Decode verified(c), stepped(c);
        lattn_decode_params verify = verified.params(), steps = stepped.params();
        verify.state_out.data = nullptr;
        steps.state_out = steps.state_in;
        Mirror mirror(device(), verified, false), mirror_steps(device(), stepped, true);
        ASSERT_EQ(LATTN_OK, mirror.decode(verify)) << lattn_last_error();
        for (int64_t token = 0; token < (exact ? c.tokens : 1); ++token)
            ASSERT_EQ(LATTN_OK, mirror_steps.decode(step_of(steps, token))) << lattn_last_error();
        mirror.fetch(); // the pool is an input
        mirror_steps.fetch();
        const std::size_t compared = static_cast<std::size_t>(exact ? c.tokens * c.e : c.e) * bytes_of(c.dtype);
        const std::vector<unsigned char> all = verified.output.bytes(), one_by_one = stepped.output.bytes();
        EXPECT_TRUE(std::equal(all.begin(), all.begin() + static_cast<std::ptrdiff_t>(compared), one_by_one.begin()));
        if (exact) {
            EXPECT_EQ(all, one_by_one);
        }
        for (int64_t accepted = 0; exact && accepted <= c.tokens; ++accepted) {
            c.accepted = {accepted, c.tokens - accepted, 1};
            Decode committed(c), again(c);
            lattn_decode_params commit = committed.params(), step = again.params();
            commit.state_out = commit.state_in;
            commit.output.data = nullptr;
            step.state_out = step.state_in;
            Mirror mirror_commit(device(), committed, true), mirror_again(device(), again, true);
            ASSERT_EQ(LATTN_OK, mirror_commit.decode(commit)) << lattn_last_error();
            for (int64_t token = 0; token < c.tokens; ++token)
                for (int64_t row = 0; row < 3; ++row) {
                    if (token >= c.accepted[static_cast<std::size_t>(row)]) continue;
                    lattn_decode_params one = step_of(step, token);
                    for (lattn_view* view : {&one.q, &one.k, &one.v, &one.output})
                        advance(view->data, row * view->stride_b, c.dtype);
                    one.batch = 1;
                    one.slots = static_cast<const int64_t*>(one.slots) + row;
                    ASSERT_EQ(LATTN_OK, mirror_again.decode(one)) << lattn_last_error();
                }
            mirror_commit.fetch();
            mirror_again.fetch();
            EXPECT_EQ(committed.state_in.bytes(), again.state_in.bytes()) << accepted << " tokens accepted";
        }
    }
}

TEST_P(DecodeTokens, ManyRows) {
    DecodeCase c = tokens_case(2);
    c.heads_qk = c.heads_v = 1;
    c.d = c.e = 16;
    const int64_t rows = c.dtype == LATTN_BFLOAT16 && c.state_dtype == LATTN_FLOAT32 ? 4096 : 64; // one type suffices
    c.slot_count = rows + 1;
    c.slots.clear();
    for (int64_t row = 0; row < rows; ++row) c.slots.push_back(row * 2 % (rows + 1));
    check_in_place(c);
}

std::vector<Target> decode_targets() {
    std::vector<Target> result;
    for (const Target& target : targets(kDeviceTypes))
        for (lattn_dtype state_dtype : kDeviceTypes) result.push_back({target.device, target.dtype, state_dtype});
    return result;
}

INSTANTIATE_TEST_SUITE_P(Devices, DecodeStep, ::testing::ValuesIn(decode_targets()), target_name);
INSTANTIATE_TEST_SUITE_P(Devices, DecodeTokens, ::testing::ValuesIn(decode_targets()), target_name);

} // namespace
} // namespace lattn::test
