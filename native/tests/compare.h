// When is a result right?
//
// Its relative RMS error against the float64 recurrence must be within twice what rounding that recurrence's result to
// the element type costs, plus a floor for arithmetic in the state type; it must be under a ceiling that knows nothing
// of the data; and no single group (a head, or a window of tokens of a head) may be far worse than that. Every
// comparison is written so that NaN fails it.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "tensor.h"

namespace lattn::test {

struct Tolerance {
    double floor;   // relative RMS error that arithmetic in the state type may add
    double ceiling; // relative RMS error that is never right
};

inline Tolerance tolerance_of(lattn_dtype dtype) {
    switch (dtype) {
        case LATTN_FLOAT64:
            return {1e-14, 5e-14};
        case LATTN_FLOAT32:
            return {1e-6, 2e-6};
        case LATTN_FLOAT16:
            return {1e-6, 5e-4};
        default:
            return {1e-6, 4e-3};
    }
}

constexpr double kWorstGroup = 4;    // a group's error, in limits of the whole
constexpr double kQuietGroup = 0.02; // a group below this share of the whole's RMS is judged against that share

struct Comparison {
    double error = 0;
    double limit = 0;
    double worst_group = 0;
    int64_t worst_group_index = -1;
    bool finite = true;
    bool passes() const { return finite && error <= limit && worst_group <= kWorstGroup * limit; }
};

// `group` consecutive elements form a group.
inline Comparison compare(const std::vector<double>& actual, const std::vector<double>& expected, lattn_dtype dtype,
                          int64_t group) {
    Comparison result;
    double error = 0, rounding = 0, norm = 0;
    for (std::size_t i = 0; i < expected.size(); ++i) {
        if (!std::isfinite(actual[i])) result.finite = false;
        error += std::pow(actual[i] - expected[i], 2);
        rounding += std::pow(rounded(expected[i], dtype) - expected[i], 2);
        norm += std::pow(expected[i], 2);
    }
    if (actual.size() != expected.size()) result.finite = false;
    if (expected.empty()) return result;
    // Below this a result is as good as zero in any type that is tested.
    const double least = 1e-30 * static_cast<double>(expected.size());
    const double scale = std::max(norm, least);
    const Tolerance tolerance = tolerance_of(dtype);
    result.error = std::sqrt(error / scale);
    result.limit = std::min(2 * std::sqrt(rounding / scale) + tolerance.floor, tolerance.ceiling);

    const double mean_square = scale / static_cast<double>(expected.size());
    const auto step = static_cast<std::size_t>(group);
    for (std::size_t begin = 0; begin < expected.size(); begin += step) {
        const std::size_t end = std::min(begin + step, expected.size());
        double group_error = 0, group_norm = 0;
        for (std::size_t i = begin; i < end; ++i) {
            group_error += std::pow(actual[i] - expected[i], 2);
            group_norm += std::pow(expected[i], 2);
        }
        const double quiet = kQuietGroup * kQuietGroup * mean_square * static_cast<double>(end - begin);
        const double relative = std::sqrt(group_error / std::max(group_norm, quiet));
        if (!(relative <= result.worst_group)) {
            result.worst_group = relative;
            result.worst_group_index = static_cast<int64_t>(begin / step);
        }
    }
    return result;
}

inline ::testing::AssertionResult matches(const std::vector<double>& actual, const std::vector<double>& expected,
                                          lattn_dtype dtype, int64_t group) {
    const Comparison c = compare(actual, expected, dtype, group);
    if (c.passes()) return ::testing::AssertionSuccess();
    return ::testing::AssertionFailure() << "relative RMS error " << c.error << ", limit " << c.limit
                                         << "; worst group " << c.worst_group_index << " has " << c.worst_group
                                         << (c.finite ? "" : "; not all finite");
}

} // namespace lattn::test
