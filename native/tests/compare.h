// When is a result right?
//
// Its relative RMS error against the float64 recurrence must be within twice what rounding that recurrence's result to
// the element type costs, plus a floor for the arithmetic before that; it must be under a ceiling that knows nothing
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
    double floor;                     // relative RMS error that arithmetic before the rounding may add
    double ceiling;                   // relative RMS error that is never right
    double ceiling_of_many = ceiling; // the same where many elements leave little to chance
    double quiet = 0.02;              // a group below this share of the whole's RMS is judged against that share
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

// What the results of a problem may err on a device.
struct Limits {
    Tolerance elements; // of the problem's element type
    Tolerance states;   // kept in the state type
    // The gradient of a rate: of the magnitudes of its terms, and of the norms of the products that a term is made of.
    double rate_magnitude;
    double rate_spread;
};

// The CPU computes in the state type. On CUDA scores and states are rounded to the element type (float16: to tf32, as
// precise) on their way to the output; a state's update keeps two such parts of an operand, or three products of
// float32. Where float32 may be rounded to tf32, every operand is, but those of the rate's gradient.
inline Limits limits_on(lattn_device_type device, lattn_dtype dtype, bool allow_tf32 = false) {
    if (device == LATTN_CPU) {
        const Tolerance states = tolerance_of(dtype == LATTN_FLOAT64 ? LATTN_FLOAT64 : LATTN_FLOAT32);
        return {tolerance_of(dtype), states, states.ceiling, 0};
    }
    switch (dtype) {
        case LATTN_BFLOAT16:
            return {{1.5e-3, 5e-3, 2.6e-3}, {1e-4, 1e-4}, 4e-3, 4e-3};
        case LATTN_FLOAT16:
            return {{2e-4, 7e-4, 5e-4}, {1e-4, 1e-4}, 5e-4, 5e-4};
        default:
            // Operands lose bits before they are multiplied, so a sum of few products errs in proportion to those and
            // not to itself: a row of one token whose terms cancel is a quiet group.
            if (allow_tf32) return {{2e-3, 2e-3, 2e-3, 0.1}, {2e-3, 2e-3}, 4e-6, 4e-6};
            return {{2e-6, 4e-6}, {2e-6, 4e-6}, 4e-6, 4e-6};
    }
}

constexpr std::size_t kMany = 16384;
constexpr double kWorstGroup = 4; // a group's error, in limits of the whole

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
                          int64_t group, const Tolerance& tolerance) {
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
    const double ceiling = expected.size() < kMany ? tolerance.ceiling : tolerance.ceiling_of_many;
    result.error = std::sqrt(error / scale);
    result.limit = std::min(2 * std::sqrt(rounding / scale) + tolerance.floor, ceiling);

    const double mean_square = scale / static_cast<double>(expected.size());
    const auto step = static_cast<std::size_t>(group);
    for (std::size_t begin = 0; begin < expected.size(); begin += step) {
        const std::size_t end = std::min(begin + step, expected.size());
        double group_error = 0, group_norm = 0;
        for (std::size_t i = begin; i < end; ++i) {
            group_error += std::pow(actual[i] - expected[i], 2);
            group_norm += std::pow(expected[i], 2);
        }
        const double quiet = tolerance.quiet * tolerance.quiet * mean_square * static_cast<double>(end - begin);
        const double relative = std::sqrt(group_error / std::max(group_norm, quiet));
        if (!(relative <= result.worst_group)) {
            result.worst_group = relative;
            result.worst_group_index = static_cast<int64_t>(begin / step);
        }
    }
    return result;
}

inline Comparison compare(const std::vector<double>& actual, const std::vector<double>& expected, lattn_dtype dtype,
                          int64_t group) {
    return compare(actual, expected, dtype, group, tolerance_of(dtype));
}

inline ::testing::AssertionResult matches(const std::vector<double>& actual, const std::vector<double>& expected,
                                          lattn_dtype dtype, int64_t group, const Tolerance& tolerance) {
    const Comparison c = compare(actual, expected, dtype, group, tolerance);
    if (c.passes()) return ::testing::AssertionSuccess();
    return ::testing::AssertionFailure() << "relative RMS error " << c.error << ", limit " << c.limit
                                         << "; worst group " << c.worst_group_index << " has " << c.worst_group
                                         << (c.finite ? "" : "; not all finite");
}

inline ::testing::AssertionResult matches(const std::vector<double>& actual, const std::vector<double>& expected,
                                          lattn_dtype dtype, int64_t group) {
    return matches(actual, expected, dtype, group, tolerance_of(dtype));
}

} // namespace lattn::test
