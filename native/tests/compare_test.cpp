// The comparer lets right results through and catches faults that an overall error alone would miss.
#include "compare.h"

#include <gtest/gtest.h>

#include <limits>
#include <random>

#include "problem.h"

namespace lattn::test {
namespace {

constexpr int64_t kGroup = 64;

class Comparer : public ::testing::TestWithParam<lattn_dtype> {
protected:
    Comparer() {
        std::mt19937 random(3);
        expected_ = random_values(256 * kGroup, random);
        for (double value : expected_) actual_.push_back(rounded(value, GetParam()));
    }

    Comparison result() const { return compare(actual_, expected_, GetParam(), kGroup); }

    std::vector<double> expected_;
    std::vector<double> actual_;
};

TEST_P(Comparer, AcceptsTheRoundedTruth) {
    EXPECT_TRUE(result().passes());
}

TEST_P(Comparer, RejectsNan) {
    actual_[777] = std::numeric_limits<double>::quiet_NaN();
    EXPECT_FALSE(result().passes());
}

TEST_P(Comparer, RejectsInfinity) {
    actual_[0] = std::numeric_limits<double>::infinity();
    EXPECT_FALSE(result().passes());
}

TEST_P(Comparer, RejectsZeros) {
    std::fill(actual_.begin(), actual_.end(), 0.0);
    EXPECT_FALSE(result().passes());
}

TEST_P(Comparer, RejectsOneZeroGroup) {
    std::fill_n(actual_.begin() + 5 * kGroup, kGroup, 0.0);
    EXPECT_FALSE(result().passes());
}

TEST_P(Comparer, RejectsTwoSwappedTokens) {
    std::swap_ranges(actual_.begin() + 9 * kGroup, actual_.begin() + 10 * kGroup, actual_.begin() + 10 * kGroup);
    EXPECT_FALSE(result().passes());
}

TEST_P(Comparer, RejectsAScaleThatIsSlightlyOff) {
    for (double& value : actual_) value *= 1.01;
    EXPECT_FALSE(result().passes());
}

TEST_P(Comparer, NamesTheWorstGroup) {
    for (int64_t i = 0; i < kGroup; ++i) actual_[static_cast<std::size_t>(11 * kGroup + i)] *= 1.05;
    const Comparison comparison = result();
    EXPECT_FALSE(comparison.passes());
    EXPECT_EQ(11, comparison.worst_group_index);
}

// The whole stays within its limit, one group does not.
TEST_P(Comparer, RejectsAGroupFarWorseThanTheWhole) {
    const double limit = result().limit;
    for (int64_t i = 0; i < kGroup; ++i) actual_[static_cast<std::size_t>(20 * kGroup + i)] *= 1 + 7 * limit;
    EXPECT_LE(result().error, limit);
    EXPECT_FALSE(result().passes());
}

TEST_P(Comparer, RejectsAQuietGroupLost) {
    for (int64_t i = 0; i < kGroup; ++i) expected_[static_cast<std::size_t>(30 * kGroup + i)] *= 0.05;
    EXPECT_FALSE(result().passes());
}

TEST_P(Comparer, RejectsAResultOfAnotherSize) {
    actual_.push_back(0);
    EXPECT_FALSE(result().passes());
}

INSTANTIATE_TEST_SUITE_P(Types, Comparer,
                         ::testing::Values(LATTN_FLOAT16, LATTN_BFLOAT16, LATTN_FLOAT32, LATTN_FLOAT64),
                         [](const auto& type) { return name_of(type.param); });

TEST(TensorOfTests, FindsAWriteBetweenItsRows) {
    Tensor tensor(LATTN_FLOAT32, {1, 2, 3, 5}, Layout::kPadded);
    tensor.poison();
    EXPECT_TRUE(tensor.guards_intact());
    static_cast<float*>(tensor.data())[5] = 0;
    EXPECT_FALSE(tensor.guards_intact());
}

TEST(TensorOfTests, FindsAWriteBeforeItsStart) {
    Tensor tensor(LATTN_BFLOAT16, {1, 1, 1, 8});
    static_cast<uint16_t*>(tensor.data())[-1] = 0;
    EXPECT_FALSE(tensor.guards_intact());
}

TEST(TensorOfTests, RoundTripsEveryValueOfTheSmallTypes) {
    for (lattn_dtype dtype : {LATTN_FLOAT16, LATTN_BFLOAT16})
        for (int bits = 0; bits < 0x10000; ++bits) {
            const auto pattern = static_cast<uint16_t>(bits);
            const double value = value16(pattern, dtype);
            if (std::isnan(value)) continue;
            ASSERT_EQ(pattern, bits16(value, dtype)) << name_of(dtype) << " " << value;
        }
}

// Chance explains an error of few elements that it does not explain of many.
TEST(CudaLimits, AreTighterForManyElements) {
    const Limits limits = limits_on(LATTN_CUDA, LATTN_BFLOAT16);
    std::mt19937 random(3);
    for (const bool many : {false, true}) {
        const int64_t groups = many ? static_cast<int64_t>(kMany) / kGroup : 4;
        const std::vector<double> expected = random_values(groups * kGroup, random);
        std::vector<double> actual = expected;
        for (double& value : actual) value *= 1.003;
        const Comparison result = compare(actual, expected, LATTN_BFLOAT16, kGroup, limits.elements);
        EXPECT_EQ(!many, result.passes()) << result.error << ", limit " << result.limit;
    }
}

} // namespace
} // namespace lattn::test
