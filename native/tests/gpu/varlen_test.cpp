// Packed sequences on a device: each as it would be alone on the same path.
#include "gpu/on_device.h"
#include "packed_problem.h"

namespace lattn::test {
namespace {

class Varlen : public OnDevice {
protected:
    PackedCase target_case() const {
        PackedCase c;
        c.dtype = GetParam().dtype;
        c.device_type = GetParam().device;
        c.allow_tf32 = GetParam().allow_tf32;
        c.cuda_path = GetParam().cuda_path;
        return c;
    }

    auto on_device() const {
        return [this](Packed& packed, auto calls) {
            Mirror mirror(device(), packed.inputs(), packed.results());
            calls(mirror);
            mirror.fetch();
        };
    }

    void check(const PackedCase& c) const {
        check_packed_forward(c, on_device());
        check_packed_backward(c, on_device());
    }
};

TEST_P(Varlen, EveryLength) {
    PackedCase c = target_case();
    c.lengths = {0, 1, 63, 64, 0, 65, 200, 2};
    c.rates = {0, 0.02, 0.4};
    c.heads_qk = c.heads_v = 3;
    check(c);
    c.lengths = {300};
    check(c);
}

TEST_P(Varlen, HeadSizesAndGroups) {
    struct HeadSizes {
        int64_t heads_qk, d, e;
    };
    for (const auto& [heads_qk, d, e] : {HeadSizes{1, 40, 136}, {2, 128, 24}, {1, 200, 72}, {2, 256, 136}}) {
        PackedCase c = target_case();
        c.lengths = {65, 0, 1, 100};
        c.heads_qk = heads_qk;
        c.d = d;
        c.e = e;
        c.scale = 0.1;
        c.after = 7;
        check(c);
    }
}

TEST_P(Varlen, PaddingAroundTheSequences) {
    for (lattn_dtype offset_dtype : {LATTN_INT32, LATTN_INT64})
        for (int64_t padding : {3, 200}) {
            PackedCase c = target_case();
            c.before = padding;
            c.after = padding + 1;
            c.offset_dtype = offset_dtype;
            check(c);
        }
}

TEST_P(Varlen, EveryLayout) {
    for (Layout layout : {Layout::kTokenMajor, Layout::kPadded, Layout::kReversed}) {
        PackedCase c = target_case();
        if (layout != Layout::kTokenMajor && c.cuda_path == LATTN_CUDA_PATH_HOPPER) continue; // cannot address it
        c.layout = layout;
        c.after = 5;
        c.heads_v = 4;
        check(c);
    }
}

// A packed batch's tensor map begins a box before the tensor.
TEST_P(Varlen, RefusesATensorAtTheBeginningOfMemory) {
    if (GetParam().cuda_path != LATTN_CUDA_PATH_HOPPER) GTEST_SKIP() << "other kernels use no tensor maps";
    Packed packed(target_case());
    lattn_forward_params params = packed.forward_params();
    params.k.data = reinterpret_cast<void*>(uintptr_t{256});
    uint64_t bytes = 0;
    EXPECT_EQ(LATTN_NOT_SUPPORTED, lattn_forward_workspace_size(&params, &bytes));
    EXPECT_NE(std::string::npos, std::string(lattn_last_error()).find("stride of k along tokens"))
        << lattn_last_error();
}

TEST_P(Varlen, StatesOutsideRegistersOfManyHeads) {
    if (GetParam().device == LATTN_CPU) GTEST_SKIP() << "registers are a GPU's";
    PackedCase c = target_case();
    c.lengths = {2100, 2060}; // neither is cut, since heads fill the GPU
    c.heads_qk = c.heads_v = device().multiprocessors();
    c.d = 136;
    c.e = 16;
    check_packed_forward(c, on_device());
}

// Sequences so long, beside so few heads, that the Hopper kernels cut them into jobs.
TEST_P(Varlen, LongSequences) {
    PackedCase c = target_case();
    c.lengths = {100, 9000, 0, 2049, 4500};
    c.heads_qk = c.heads_v = 1;
    c.d = 16;
    c.e = 24;
    c.rates = {0.001};
    c.before = 3;
    check(c);
    c.slot_count = 6;
    c.slots = {4, 0, 1, 5, 2};
    c.has_initial = {1, 1, 0, 0, 1};
    check_packed_forward(c, on_device());
    c.state_dtype = LATTN_BFLOAT16;
    c.d = 136;        // its states do not fit into registers
    c.rates = {0.05}; // nothing of a segment's beginning is left at its end
    check_packed_forward(c, on_device());
}

TEST_P(Varlen, NothingAtAll) {
    PackedCase c = target_case();
    c.lengths = {};
    check(c);
    c.after = 10; // padding alone
    check(c);
    c.after = 0;
    c.lengths = {0, 0};
    check(c);
    c.slot_count = 3;
    c.slots = {2, 0};
    c.has_initial = {0, 1};
    check_packed_forward(c, on_device());
}

TEST_P(Varlen, Pool) {
    for (lattn_dtype state_dtype : kDeviceTypes)
        for (Layout layout : {Layout::kContiguous, Layout::kTokenMajor, Layout::kPadded, Layout::kReversed}) {
            PackedCase c = target_case();
            c.state_dtype = state_dtype;
            c.state_layout = layout;
            c.slot_dtype = layout == Layout::kContiguous ? LATTN_INT32 : LATTN_INT64;
            c.heads_v = 4;
            c.e = 72;
            c.before = 2;
            c.lengths = {65, 0, 0, 30, 1, 130, 0};
            c.slot_count = 9;
            c.slots = {4, 8, 0, -1, 2, 7, -1};
            check_packed_forward(c, on_device());
            c.has_initial = {1, 0, 1, 0, 0, 1, 0};
            check_packed_forward(c, on_device());
        }
}

// Several jobs for each multiprocessor one after the other, some of a single chunk, with and without initial states.
TEST_P(Varlen, PoolOfManyShortSequences) {
    PackedCase c = target_case();
    c.lengths = {1, 70, 1, 0, 130, 64, 1, 3};
    c.heads_qk = c.heads_v = GetParam().device == LATTN_CPU ? 2 : device().multiprocessors();
    c.d = 128;
    c.e = 64;
    c.scale = 0.1;
    c.slot_count = 9;
    c.slots = {4, 8, 0, 3, 2, 7, -1, 1};
    check_packed_forward(c, on_device());
    c.has_initial = {1, 0, 0, 1, 1, 0, 1, 1};
    check_packed_forward(c, on_device());
}

// A slot outside the pool is none on CUDA, and an error on the CPU.
TEST_P(Varlen, SlotsOutsideThePool) {
    if (GetParam().device == LATTN_CPU) GTEST_SKIP() << "an error on the CPU";
    PackedCase c = target_case();
    c.slot_count = 3;
    c.slots = {1, 3, std::numeric_limits<int64_t>::max(), std::numeric_limits<int64_t>::min()};
    c.lengths = {65, 70, 1, 130};
    check_packed_forward(c, on_device());
}

// Whatever the offsets are, nothing outside the tensors is read or written: the guards are intact, and the sequence
// that is in order is right.
TEST_P(Varlen, OffsetsOutOfOrder) {
    if (GetParam().device == LATTN_CPU) GTEST_SKIP() << "an error on the CPU";
    PackedCase c = target_case();
    c.lengths = {65, 70, 40, 30};
    Packed right(c);
    on_device()(right, [&](auto& caller) { caller.forward(right.forward_params()); });
    constexpr int64_t kMost = std::numeric_limits<int64_t>::max(), kLeast = std::numeric_limits<int64_t>::min();
    for (const std::vector<int64_t>& offsets : std::vector<std::vector<int64_t>>{{0, 65, 1000, 2000, 3000},
                                                                                 {-100, 65, kLeast, kMost, 3},
                                                                                 {kLeast, 65, 20, 10, 0},
                                                                                 {0, 65, 65, kMost, kLeast}}) {
        Packed wrong(c);
        wrong.offsets() = offsets;
        on_device()(wrong, [&](auto& caller) {
            caller.forward(wrong.forward_params());
            caller.backward(wrong.backward_params());
        });
        wrong.expect_guards_intact();
        const std::vector<double> expected = right.output.values(), actual = wrong.output.values();
        for (std::size_t i = 0; i < static_cast<std::size_t>(20 * c.e); ++i) ASSERT_EQ(expected[i], actual[i]) << i;
    }
}

TEST_P(Varlen, TheSameCallTwice) {
    PackedCase c = target_case();
    c.lengths = {130, 7, 0, 64, 200};
    c.heads_v = 4;
    Packed first(c), second(c);
    for (Packed* packed : {&first, &second})
        on_device()(*packed, [&](auto& caller) {
            caller.forward(packed->forward_params());
            caller.backward(packed->backward_params());
        });
    EXPECT_EQ(first.output.storage(), second.output.storage());
    EXPECT_EQ(first.grad_q.storage(), second.grad_q.storage());
    EXPECT_EQ(first.grad_k.storage(), second.grad_k.storage());
    EXPECT_EQ(first.grad_v.storage(), second.grad_v.storage());
    EXPECT_EQ(first.grad_rate.storage(), second.grad_rate.storage());
}

// What a call reads of its sequences may be written by the kernel before it until that one ends: a call leaves states
// where the next one has rates, flags or slots, and must find them as one does that has waited.
TEST_P(Varlen, WhatTheCallBeforeWrites) {
    constexpr float kBefore = 1.1215f; // no byte of it is zero, as a slot it is none
    struct Outcome {
        std::vector<unsigned char> output, pool;

        bool operator==(const Outcome&) const = default;
    };
    PackedCase c = target_case();
    c.lengths = {640, 3}; // of so few heads that the next call finds room at once
    c.heads_qk = c.heads_v = 2;
    c.d = 16;
    c.e = 64;
    c.rates = {0.001};
    c.scale = 0.1;
    c.slot_count = 2;
    c.slots = {0, 1};
    c.slot_dtype = LATTN_INT32;
    const auto outcome = [&](auto set_inputs, bool from_zeros, bool waits) {
        PackedCase of_first = c;
        of_first.has_initial.assign(2, !from_zeros);
        Packed first(of_first), second(c);
        first.k.assign(std::vector<double>(first.k.count(), 0.0));
        first.pool.assign(std::vector<double>(first.pool.count(), kBefore));
        std::vector<std::span<unsigned char>> inputs = first.inputs(), results = first.results();
        for (const auto& input : second.inputs()) inputs.push_back(input);
        for (const auto& result : second.results()) results.push_back(result);
        Mirror mirror(device(), inputs, results);
        mirror.forward(first.forward_params());
        if (waits) device().synchronize();
        lattn_forward_params params = second.forward_params();
        set_inputs(params, first.pool.data());
        mirror.forward(params);
        mirror.fetch();
        return Outcome{second.output.storage(), second.pool.storage()};
    };
    const auto expect_same = [&](const char* what, bool from_zeros, auto set_inputs) {
        const Outcome expected = outcome(set_inputs, from_zeros, true);
        for (int i = 0; i < 3; ++i) EXPECT_TRUE(expected == outcome(set_inputs, from_zeros, false)) << what;
    };
    expect_same("rates", false, [](auto& params, void* states) { params.decay_rate = states; });
    expect_same("flags", true,
                [](auto& params, void* states) { params.pool.has_initial = static_cast<const uint8_t*>(states); });
    expect_same("slots", true, [](auto& params, void* states) {
        params.pool.slots = states;
        params.problem.batch = 1;
    });
}

// On one path each: a packed call and those of its sequences alone must not take different ones.
std::vector<Target> varlen_targets() {
    std::vector<Target> all = operator_targets();
    for (Target& target : all) target.cuda_path = LATTN_CUDA_PATH_GENERAL;
    for (lattn_dtype dtype : kHopperTypes) {
        all.push_back({LATTN_CUDA, dtype});
        all.back().cuda_path = LATTN_CUDA_PATH_HOPPER;
    }
    return all;
}

INSTANTIATE_TEST_SUITE_P(Devices, Varlen, ::testing::ValuesIn(varlen_targets()), target_name);

} // namespace
} // namespace lattn::test
