// The element types, every bit pattern of them. With N = D = 1, q = k = 1 and rate 0 the operator returns v, converted
// to the arithmetic type and back.
#include <gtest/gtest.h>

#include <cstring>

#include "tensor.h"

namespace lattn::test {
namespace {

constexpr int64_t kPatterns = 0x10000;

class Conversion : public ::testing::TestWithParam<lattn_dtype> {
protected:
    // out = scale * v, v of all bit patterns. NaN compares as NaN.
    std::vector<uint16_t> scaled(double scale) {
        const lattn_dtype dtype = GetParam();
        std::vector<uint16_t> v(kPatterns), out(kPatterns);
        for (std::size_t i = 0; i < v.size(); ++i) v[i] = static_cast<uint16_t>(i);
        uint16_t one = bits16(1.0, dtype);
        const float rate = 0;
        lattn_forward_params params = {};
        params.struct_size = sizeof(params);
        params.problem.batch = params.problem.heads_qk = params.problem.heads_v = params.problem.tokens = 1;
        params.problem.head_dim_qk = 1;
        params.problem.head_dim_v = kPatterns;
        params.problem.block_size = 64;
        params.problem.state_count = 1;
        params.problem.scale = scale;
        params.problem.dtype = dtype;
        params.problem.device_type = LATTN_CPU;
        params.q.data = params.k.data = &one;
        params.v.data = v.data();
        params.output.data = out.data();
        params.decay_rate = &rate;
        EXPECT_EQ(LATTN_OK, lattn_forward(&params)) << lattn_last_error();
        return out;
    }
};

TEST_P(Conversion, RoundTripsEveryBitPattern) {
    const std::vector<uint16_t> out = scaled(1);
    for (std::size_t i = 0; i < out.size(); ++i) {
        const double value = value16(static_cast<uint16_t>(i), GetParam());
        if (std::isnan(value))
            EXPECT_TRUE(std::isnan(value16(out[i], GetParam()))) << i;
        else
            // 0 * v is added to v: the sign of zero is not kept.
            EXPECT_EQ(value == 0 ? 0 : i, static_cast<std::size_t>(value == 0 ? out[i] & 0x7fff : out[i])) << value;
    }
}

// Factors that make ties, overflow, subnormals and exact results. The product is exact in float32 for these factors.
TEST_P(Conversion, RoundsToNearestEven) {
    const bool wide = GetParam() == LATTN_BFLOAT16;
    for (double scale : {1.5, 1.25, 3.0, 0.5, 0.75, 0.0625, 1.0009765625, 1 / 4096.0, 1000.0}) {
        const std::vector<uint16_t> out = scaled(scale);
        for (std::size_t i = 0; i < out.size(); ++i) {
            const double value = value16(static_cast<uint16_t>(i), GetParam());
            const double product = value * scale;
            // bfloat16 shares float32's exponents, whose own underflow and overflow come first.
            if (!std::isfinite(value) || value == 0) continue;
            if (wide && (std::abs(product) < 1e-35 || std::abs(product) > 1e38)) continue;
            EXPECT_EQ(bits16(product, GetParam()), out[i]) << value << " * " << scale;
        }
    }
}

INSTANTIATE_TEST_SUITE_P(Types, Conversion, ::testing::Values(LATTN_FLOAT16, LATTN_BFLOAT16),
                         [](const auto& type) { return type.param == LATTN_FLOAT16 ? "float16" : "bfloat16"; });

} // namespace
} // namespace lattn::test
