// Every kernel once, at sizes that compute-sanitizer's slowest tools finish: two chunks and a tail, edges in D and E.
#include "gpu/on_device.h"
#include "packed_problem.h"

namespace lattn::test {
namespace {

class Sanitize : public OnDevice {};

TEST_P(Sanitize, ForwardAndBackward) {
    for (int64_t row_dim : {40, 72, 136, 200}) { // one for each size of the scan kernel
        Case c = target_case(sizes_of(1, 1, 2, 140, row_dim, 24));
        c.scale = 0.1;
        c.qk_layout = row_dim == 72 ? Layout::kPadded : Layout::kTokenMajor;
        check_forward_and_backward(c);
        std::swap(c.sizes.head_dim_qk, c.sizes.head_dim_v);
        check_forward_and_backward(c);
    }
}

TEST_P(Sanitize, DecodeStep) {
    for (lattn_dtype state_dtype : kDeviceTypes)
        for (Layout state_layout : {Layout::kContiguous, Layout::kPadded})
            for (int64_t tokens : {1, 3})
                for (int64_t d : {40, 136}) { // one for each size of the kernel
                    DecodeCase c;
                    c.dtype = GetParam().dtype;
                    c.state_dtype = state_dtype;
                    c.device_type = GetParam().device;
                    c.d = d;
                    c.e = 72;
                    c.tokens = tokens;
                    c.slots = {4, -1, 3};
                    c.state_layout = state_layout;
                    Decode decode(c);
                    const std::vector<double> before = decode.state_in.values(), untouched = decode.state_out.values();
                    const lattn_decode_params params = decode.params();
                    Mirror mirror(device(), decode, false);
                    ASSERT_EQ(LATTN_OK, mirror.decode(params)) << lattn_last_error();
                    mirror.fetch();
                    decode.expect(before, decode.state_out.values(), untouched);
                    decode.expect_guards_intact();
                }
}

TEST_P(Sanitize, PackedSequences) {
    const auto run = [this](Packed& packed, auto calls) {
        Mirror mirror(device(), packed.inputs(), packed.results());
        calls(mirror);
        mirror.fetch();
    };
    for (int64_t row_dim : {40, 136}) {
        PackedCase c;
        c.dtype = GetParam().dtype;
        c.device_type = GetParam().device;
        c.allow_tf32 = GetParam().allow_tf32;
        c.cuda_path = LATTN_CUDA_PATH_GENERAL;
        c.lengths = {70, 0, 1, 65};
        c.before = 3;
        c.after = 66;
        c.heads_qk = 1;
        c.d = row_dim;
        c.layout = row_dim == 40 ? Layout::kPadded : Layout::kTokenMajor;
        check_packed_backward(c, run);
        c.slot_count = 5;
        c.slots = {4, 1, 0, -1};
        c.has_initial = {1, 0, 0, 1};
        c.state_dtype = row_dim == 40 ? LATTN_BFLOAT16 : LATTN_FLOAT32;
        check_packed_forward(c, run);
    }
}

TEST_P(Sanitize, Activation) {
    for (const int64_t offset : {0, 1})
        for (const bool of_gradient : {false, true}) {
            ActivationCase c;
            c.dtype = GetParam().dtype;
            c.device_type = GetParam().device;
            c.count = 5001;
            c.offset = offset;
            c.of_gradient = of_gradient;
            check(c);
        }
}

TEST_P(Sanitize, GatedNorm) {
    // One for each kernel: whole pieces and single elements, teams of a part of a warp and of several warps; slices of
    // several rows.
    for (const bool small : {true, false}) {
        GatedNormCase c;
        c.dtype = GetParam().dtype;
        c.device_type = GetParam().device;
        c.batch = 1;
        c.tokens = small ? 520 : 3;
        c.head_dim = small ? 8 : 520;
        c.heads = 2;
        c.groups = small ? 2 : 1;
        for (const Layout layout : {Layout::kTokenMajor, Layout::kPadded}) {
            c.gate_layout = layout;
            check(c);
        }
    }
}

INSTANTIATE_TEST_SUITE_P(Devices, Sanitize, ::testing::ValuesIn(operator_targets()), target_name);

class SanitizeHopper : public OnHopper {};

TEST_P(SanitizeHopper, OneSegment) {
    for (int64_t d : {40, 104, 168, 232}) // one for each size of the kernel
        for (int64_t tokens : {1, 460}) { // more chunks than the ring has stages
            Case c = hopper_case(sizes_of(1, 1, 2, tokens, d, 72, 128));
            c.qk_layout = c.v_layout = c.output_layout = Layout::kTokenMajor;
            check_forward(c);
        }
}

TEST_P(SanitizeHopper, SplitSegments) {
    for (int64_t d : {40, 104, 168, 232}) check_forward(hopper_case(sizes_of(1, 1, 1, 2048 + 70, d, 72, 1024)));
}

TEST_P(SanitizeHopper, SegmentsOfWholeSequences) {
    for (int64_t d : {24, 136})
        check_forward(hopper_case(sizes_of(1, 1, device().multiprocessors(), 2048 + 70, d, 16, 1024)));
}

TEST_P(SanitizeHopper, Backward) {
    for (int64_t tokens : {200, 2048 + 70}) {
        Case c = hopper_case(sizes_of(1, 1, 2, tokens, 104, 40, 128));
        c.rates = {0.001, 0.05};
        c.backward = true;
        check_forward_and_backward(c);
    }
}

INSTANTIATE_TEST_SUITE_P(Devices, SanitizeHopper, ::testing::ValuesIn(targets(kHopperTypes)), target_name);

} // namespace
} // namespace lattn::test
