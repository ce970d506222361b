// Packed sequences on the CPU: each as it would be alone, and what is refused.
#include <gtest/gtest.h>

#include <cstring>
#include <functional>

#include "packed_problem.h"

namespace lattn::test {
namespace {

struct Direct {
    void forward(const lattn_forward_params& params) {
        ASSERT_EQ(LATTN_OK, lattn_forward(&params)) << lattn_last_error();
    }
    void backward(const lattn_backward_params& params) {
        ASSERT_EQ(LATTN_OK, lattn_backward(&params)) << lattn_last_error();
    }
};

constexpr auto on_cpu = [](Packed&, auto calls) {
    Direct direct;
    calls(direct);
};

void check(const PackedCase& c) {
    check_packed_forward(c, on_cpu);
    check_packed_backward(c, on_cpu);
}

class Varlen : public ::testing::TestWithParam<lattn_dtype> {
protected:
    PackedCase with_type() const {
        PackedCase c;
        c.dtype = GetParam();
        c.state_dtype = state_dtype_of(c.dtype);
        return c;
    }
};

TEST_P(Varlen, EveryLength) {
    PackedCase c = with_type();
    c.lengths = {0, 1, 63, 64, 0, 65, 200, 2};
    check(c);
    c.lengths = {300};
    check(c);
}

TEST_P(Varlen, HeadSizesAndGroups) {
    for (int64_t heads_qk : {1, 3})
        for (int64_t d : {5, 40})
            for (int64_t e : {7, 200}) {
                PackedCase c = with_type();
                c.heads_qk = heads_qk;
                c.heads_v = 6;
                c.d = d;
                c.e = e;
                c.rates = {0, 0.02, 100};
                check(c);
            }
}

TEST_P(Varlen, PaddingAroundTheSequences) {
    for (lattn_dtype offset_dtype : {LATTN_INT32, LATTN_INT64}) {
        PackedCase c = with_type();
        c.before = 3;
        c.after = 70;
        c.offset_dtype = offset_dtype;
        check(c);
    }
}

TEST_P(Varlen, EveryLayout) {
    for (Layout layout : {Layout::kTokenMajor, Layout::kPadded, Layout::kReversed}) {
        PackedCase c = with_type();
        c.layout = layout;
        c.after = 5;
        check(c);
    }
}

TEST_P(Varlen, NothingAtAll) {
    PackedCase c = with_type();
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
    check_packed_forward(c, on_cpu);
}

TEST_P(Varlen, Pool) {
    const bool wide = GetParam() == LATTN_FLOAT64;
    for (lattn_dtype state_dtype : kTypes) {
        if ((state_dtype == LATTN_FLOAT64) != wide) continue;
        for (Layout layout : {Layout::kContiguous, Layout::kTokenMajor, Layout::kPadded, Layout::kReversed})
            for (lattn_dtype slot_dtype : {LATTN_INT32, LATTN_INT64}) {
                PackedCase c = with_type();
                c.state_dtype = state_dtype;
                c.state_layout = layout;
                c.slot_dtype = slot_dtype;
                c.heads_v = 4;
                c.lengths = {65, 0, 0, 30, 1, 130, 0};
                c.slot_count = 9;
                c.slots = {4, 8, 0, -1, 2, 7, -1};
                check_packed_forward(c, on_cpu);
                c.has_initial = {1, 0, 1, 0, 0, 1, 0};
                check_packed_forward(c, on_cpu);
            }
    }
}

// Slot b of sequence b.
TEST_P(Varlen, PoolWithoutSlots) {
    PackedCase c = with_type();
    c.slot_count = 5;
    c.slots = {0, 1, 2, 3};
    Packed with(c), without(c);
    lattn_forward_params params = with.forward_params();
    ASSERT_EQ(LATTN_OK, lattn_forward(&params)) << lattn_last_error();
    params = without.forward_params();
    params.pool.slots = nullptr;
    params.pool.slot_dtype = 0;
    ASSERT_EQ(LATTN_OK, lattn_forward(&params)) << lattn_last_error();
    EXPECT_EQ(with.output.storage(), without.output.storage());
    EXPECT_EQ(with.pool.storage(), without.pool.storage());
}

// Prefill of a prompt in pieces, each starting from what the one before left in the pool.
TEST_P(Varlen, PiecesContinueFromThePool) {
    PackedCase c = with_type();
    c.lengths = {192, 64 + 30};
    c.slot_count = 2;
    c.slots = {1, 0};
    c.has_initial = {0, 0};
    Packed whole(c), pieces(c);
    lattn_forward_params params = whole.forward_params();
    ASSERT_EQ(LATTN_OK, lattn_forward(&params)) << lattn_last_error();
    const std::vector<int64_t> all = pieces.offsets();
    params = pieces.forward_params();
    for (int64_t done = 0; done < 192; done += 64) {
        // The first sequence's next 64 tokens, then the second's.
        for (int64_t sequence = 0; sequence < 2; ++sequence) {
            const int64_t end = all[static_cast<std::size_t>(sequence + 1)];
            const int64_t first = std::min(all[static_cast<std::size_t>(sequence)] + done, end);
            const int64_t offsets[] = {first, std::min(first + 64, end)};
            const int64_t slot = sequence == 0 ? 1 : 0;
            const uint8_t has_initial = done > 0;
            Packed piece(c); // its padding is written too
            piece.pool.storage() = pieces.pool.storage();
            lattn_forward_params call = piece.forward_params();
            call.problem.batch = 1;
            call.problem.cu_seqlens = offsets;
            call.pool.slots = &slot;
            call.pool.has_initial = &has_initial;
            ASSERT_EQ(LATTN_OK, lattn_forward(&call)) << lattn_last_error();
            pieces.pool.storage() = piece.pool.storage();
        }
    }
    EXPECT_EQ(whole.pool.bytes(), pieces.pool.bytes());
}

INSTANTIATE_TEST_SUITE_P(Types, Varlen, ::testing::ValuesIn(kTypes),
                         [](const auto& type) { return name_of(type.param); });

// What is refused leaves everything as it was.
class VarlenErrors : public ::testing::Test {
protected:
    static PackedCase pooled() {
        PackedCase c;
        c.slot_count = 5;
        c.slots = {4, 0, -1, 2};
        c.has_initial = {1, 0, 1, 1};
        c.poison_padding = false;
        return c;
    }

    static void expect_refused(const PackedCase& c, const char* message,
                               const std::function<void(Packed&, lattn_forward_params&)>& spoil) {
        Packed packed(c);
        lattn_forward_params params = packed.forward_params();
        spoil(packed, params);
        const std::vector<unsigned char> output = packed.output.storage(), pool = packed.pool.storage();
        EXPECT_EQ(LATTN_INVALID_ARGUMENT, lattn_forward(&params)) << message;
        EXPECT_NE(nullptr, std::strstr(lattn_last_error(), message)) << lattn_last_error();
        EXPECT_EQ(output, packed.output.storage()) << message;
        EXPECT_EQ(pool, packed.pool.storage()) << message;
    }

    static void expect_refused(const char* message, const std::function<void(lattn_backward_params&)>& spoil) {
        Packed packed{PackedCase{}};
        lattn_backward_params params = packed.backward_params();
        spoil(params);
        const std::vector<unsigned char> grad = packed.grad_q.storage();
        EXPECT_EQ(LATTN_INVALID_ARGUMENT, lattn_backward(&params)) << message;
        EXPECT_NE(nullptr, std::strstr(lattn_last_error(), message)) << lattn_last_error();
        EXPECT_EQ(grad, packed.grad_q.storage()) << message;
    }
};

TEST_F(VarlenErrors, Offsets) {
    const auto set = [](std::size_t index, int64_t value) {
        return [=](Packed& packed, lattn_forward_params&) { packed.offsets()[index] = value; };
    };
    expect_refused(pooled(), "cu_seqlens[0] = -1 must not be negative", set(0, -1));
    expect_refused(pooled(), "cu_seqlens[2] = 64 is less than cu_seqlens[1] = 65", set(2, 64));
    expect_refused(pooled(), "cu_seqlens[4] = 197 must be at most tokens = 196", set(4, 197));
    expect_refused("cu_seqlens_dtype = 6 (float32) must be int32 or int64",
                   [](lattn_backward_params& params) { params.problem.cu_seqlens_dtype = LATTN_FLOAT32; });
    const int64_t decreasing[] = {0, 100, 90, 95, 196};
    expect_refused("cu_seqlens[2] = 90 is less than cu_seqlens[1] = 100",
                   [&](lattn_backward_params& params) { params.problem.cu_seqlens = decreasing; });
}

TEST_F(VarlenErrors, Slots) {
    const auto set = [](std::size_t index, int64_t value) {
        return [=](Packed& packed, lattn_forward_params&) { packed.slots()[index] = value; };
    };
    expect_refused(pooled(), "pool.slots[1] = 5 must be -1 (padding) or less than pool.slot_count = 5", set(1, 5));
    expect_refused(pooled(), "pool.slots[3] = -2", set(3, -2));
    expect_refused(pooled(), "pool.slots[0] and pool.slots[3] are both 4", set(3, 4));
}

TEST_F(VarlenErrors, Pool) {
    const auto spoil = [](const char* message, const std::function<void(lattn_forward_params&)>& change) {
        expect_refused(pooled(), message, [&](Packed&, lattn_forward_params& params) { change(params); });
    };
    spoil("pool.state_dtype = float64 does not go with dtype = float32",
          [](auto& params) { params.pool.state_dtype = LATTN_FLOAT64; });
    spoil("pool.state_dtype = 3 (int32)", [](auto& params) { params.pool.state_dtype = LATTN_INT32; });
    spoil("pool.slot_dtype = 6 (float32)", [](auto& params) { params.pool.slot_dtype = LATTN_FLOAT32; });
    spoil("pool.slot_count = -1", [](auto& params) { params.pool.slot_count = -1; });
    spoil("pool.slot_count = 3 is less than batch = 4", [](auto& params) {
        params.pool.slots = nullptr;
        params.pool.slot_count = 3;
    });
    spoil("pool.states.data is NULL", [](auto& params) { params.pool.states.data = nullptr; });
    spoil("cu_seqlens is NULL", [](auto& params) {
        params.problem.cu_seqlens = nullptr;
        params.problem.batch = 1;
    });
    PackedCase wide = pooled();
    wide.dtype = LATTN_FLOAT64;
    expect_refused(wide, "pool.state_dtype = float32 does not go with dtype = float64",
                   [](Packed&, lattn_forward_params&) {});
}

TEST_F(VarlenErrors, StatesOutsideThePool) {
    expect_refused(pooled(), "history.data must be NULL with cu_seqlens",
                   [](Packed& packed, auto& params) { params.history = packed.histories.state_view(); });
    expect_refused(pooled(), "states.data must be NULL with cu_seqlens",
                   [](Packed& packed, auto& params) { params.states = packed.finals.states_view(); });
    expect_refused(pooled(), "state_count = 5 must be 1 with cu_seqlens",
                   [](Packed&, auto& params) { params.problem.state_count = 5; });
    double state = 0;
    expect_refused("history.data must be NULL", [&](auto& params) { params.history.data = &state; });
    expect_refused("grad_states.data must be NULL", [&](auto& params) { params.grad_states.data = &state; });
    expect_refused("grad_history.data must be NULL", [&](auto& params) { params.grad_history.data = &state; });
}

TEST_F(VarlenErrors, MissingTensors) {
    expect_refused(pooled(), "v.data is NULL", [](Packed&, auto& params) { params.v.data = nullptr; });
    expect_refused(pooled(), "output.data is NULL", [](Packed&, auto& params) { params.output.data = nullptr; });
}

} // namespace
} // namespace lattn::test
