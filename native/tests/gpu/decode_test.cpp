// lattn_decode over the range of its arguments.
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

std::vector<Target> decode_targets() {
    std::vector<Target> result;
    for (const Target& target : targets(kDeviceTypes))
        for (lattn_dtype state_dtype : kDeviceTypes) result.push_back({target.device, target.dtype, state_dtype});
    return result;
}

INSTANTIATE_TEST_SUITE_P(Devices, DecodeStep, ::testing::ValuesIn(decode_targets()), target_name);

} // namespace
} // namespace lattn::test
