// A strided tensor in host memory that can tell what a kernel did to it: the bytes between and around its elements are
// guards, and an output starts as NaN.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <numeric>
#include <vector>

#include "lightning_attn.h"

namespace lattn::test {

inline std::size_t bytes_of(lattn_dtype dtype) {
    switch (dtype) {
        case LATTN_FLOAT64:
            return 8;
        case LATTN_FLOAT32:
            return 4;
        default:
            return 2;
    }
}

inline lattn_dtype state_dtype_of(lattn_dtype dtype) {
    return dtype == LATTN_FLOAT64 ? LATTN_FLOAT64 : LATTN_FLOAT32;
}

// Rounds to nearest even with `digits` significant bits and least positive value 2^lowest, by arithmetic alone, so that
// it shares nothing with the bit patterns of the kernels.
inline double round_to(double value, int digits, int lowest, double largest) {
    if (value == 0 || !std::isfinite(value)) return value;
    int exponent;
    std::frexp(value, &exponent);
    const int last_bit = std::max(exponent - digits, lowest);
    const double rounded = std::ldexp(std::nearbyint(std::ldexp(value, -last_bit)), last_bit);
    return std::abs(rounded) > largest ? std::copysign(std::numeric_limits<double>::infinity(), value) : rounded;
}

inline double rounded(double value, lattn_dtype dtype) {
    switch (dtype) {
        case LATTN_FLOAT16:
            return round_to(value, 11, -24, 65504.0);
        case LATTN_BFLOAT16:
            return round_to(value, 8, -133, std::ldexp(255.0, 120));
        case LATTN_FLOAT32:
            return static_cast<double>(static_cast<float>(value));
        default:
            return value;
    }
}

inline uint16_t bits16(double value, lattn_dtype dtype) {
    const int fraction_bits = dtype == LATTN_FLOAT16 ? 10 : 7;
    const int lowest_exponent = dtype == LATTN_FLOAT16 ? -14 : -126;
    const int exponent_ones = dtype == LATTN_FLOAT16 ? 31 : 255;
    const unsigned sign = std::signbit(value) ? 0x8000u : 0u;
    const auto pack = [&](int exponent, int fraction) {
        return static_cast<uint16_t>(sign | static_cast<unsigned>(exponent << fraction_bits) |
                                     static_cast<unsigned>(fraction));
    };
    if (std::isnan(value)) return pack(exponent_ones, 1 << (fraction_bits - 1));
    const double magnitude = std::abs(rounded(value, dtype));
    if (std::isinf(magnitude)) return pack(exponent_ones, 0);
    if (magnitude < std::ldexp(1.0, lowest_exponent))
        return pack(0, static_cast<int>(std::ldexp(magnitude, fraction_bits - lowest_exponent)));
    int exponent;
    const double fraction = std::frexp(magnitude, &exponent) * 2 - 1;
    return pack(exponent - lowest_exponent, static_cast<int>(std::ldexp(fraction, fraction_bits)));
}

inline double value16(uint16_t bits, lattn_dtype dtype) {
    const int fraction_bits = dtype == LATTN_FLOAT16 ? 10 : 7;
    const int lowest_exponent = dtype == LATTN_FLOAT16 ? -14 : -126;
    const int exponent_ones = dtype == LATTN_FLOAT16 ? 31 : 255;
    const int exponent = (bits & 0x7fff) >> fraction_bits;
    const int fraction = bits & ((1 << fraction_bits) - 1);
    double magnitude;
    if (exponent == exponent_ones)
        magnitude = fraction == 0 ? std::numeric_limits<double>::infinity() : std::numeric_limits<double>::quiet_NaN();
    else if (exponent == 0)
        magnitude = std::ldexp(fraction, lowest_exponent - fraction_bits);
    else
        magnitude = std::ldexp((1 << fraction_bits) + fraction, exponent - 1 + lowest_exponent - fraction_bits);
    return (bits & 0x8000) != 0 ? -magnitude : magnitude;
}

enum class Layout {
    kContiguous,
    kTokenMajor,   // [B, N, H, X] storage seen as [B, H, N, X]; for states [B, H, E, D] seen as [B, H, D, E]
    kPadded,       // gaps between rows, and a first element that is aligned to itself only
    kReversed,     // negative strides
    kSharedBatch,  // stride 0 over B
    kSharedHeads,  // stride 0 over H
    kSharedTokens, // stride 0 over N
};

class Tensor {
public:
    // A state has a last axis of any stride; other tensors have unit stride there in every layout.
    enum class Kind { kRows, kState };

    Tensor(lattn_dtype dtype, std::vector<int64_t> sizes, Layout layout = Layout::kContiguous, Kind kind = Kind::kRows)
        : dtype_(dtype), sizes_(std::move(sizes)), strides_(sizes_.size()) {
        const std::size_t rank = sizes_.size();
        std::vector<std::size_t> order(rank); // outermost first
        std::iota(order.begin(), order.end(), std::size_t{0});
        if (layout == Layout::kTokenMajor && kind == Kind::kState) std::swap(order[rank - 1], order[rank - 2]);
        if (layout == Layout::kTokenMajor && kind == Kind::kRows) std::swap(order[1], order[2]);
        const std::size_t shared = layout == Layout::kSharedBatch    ? 0
                                   : layout == Layout::kSharedHeads  ? 1
                                   : layout == Layout::kSharedTokens ? 2
                                                                     : rank;
        int64_t span = 1;
        for (std::size_t i = rank; i-- > 0;) {
            const std::size_t axis = order[i];
            const bool may_reverse = kind == Kind::kState || axis + 1 < rank;
            const bool reverse = layout == Layout::kReversed && may_reverse;
            strides_[axis] = axis == shared ? 0 : reverse ? -span : span;
            if (axis != shared) span *= std::max<int64_t>(sizes_[axis], 1);
            if (layout == Layout::kPadded) span += i + 1 == rank ? 3 : 1;
        }
        origin_ = kGuardElements + (layout == Layout::kPadded ? 1 : 0);
        for (std::size_t axis = 0; axis < rank; ++axis)
            if (strides_[axis] < 0) origin_ -= strides_[axis] * std::max<int64_t>(sizes_[axis] - 1, 0);
        storage_.assign(static_cast<std::size_t>(origin_ + span + kGuardElements) * bytes_of(dtype_), kGuard);
        owned_.assign(storage_.size(), 0);
        for_each([&](int64_t element) { std::fill_n(owned_.begin() + byte_of(element), bytes_of(dtype_), 1); });
    }

    lattn_dtype dtype() const { return dtype_; }
    const std::vector<int64_t>& sizes() const { return sizes_; }
    int64_t stride(std::size_t axis) const { return strides_[axis]; }
    int64_t count() const {
        return std::accumulate(sizes_.begin(), sizes_.end(), int64_t{1}, std::multiplies<int64_t>());
    }
    void* data() { return storage_.data() + byte_of(origin_); }

    lattn_view view() { return {data(), strides_[0], strides_[1], strides_[2]}; }
    lattn_state_view state_view() { return {data(), strides_[0], strides_[1], strides_[2], strides_[3]}; }
    lattn_states_view states_view() {
        return {data(), strides_[0], strides_[1], strides_[2], strides_[3], strides_[4]};
    }

    // Row-major values in, each rounded to the element type. Where a stride is 0 the last one stays.
    void assign(const std::vector<double>& values) {
        std::size_t next = 0;
        for_each([&](int64_t element) { set(element, values[next++]); });
    }

    std::vector<double> values() const {
        std::vector<double> result;
        result.reserve(static_cast<std::size_t>(count()));
        for_each([&](int64_t element) { result.push_back(get(element)); });
        return result;
    }

    void poison() {
        for_each([&](int64_t element) { set(element, std::numeric_limits<double>::quiet_NaN()); });
    }

    bool guards_intact() const {
        for (std::size_t i = 0; i < storage_.size(); ++i)
            if (owned_[i] == 0 && storage_[i] != kGuard) return false;
        return true;
    }

    // Bit for bit, guards included.
    const std::vector<unsigned char>& storage() const { return storage_; }
    std::vector<unsigned char>& storage() { return storage_; }

    // The bytes of the elements in row-major order.
    std::vector<unsigned char> bytes() const {
        std::vector<unsigned char> result;
        for_each([&](int64_t element) {
            const auto begin = storage_.begin() + byte_of(element);
            result.insert(result.end(), begin, begin + static_cast<std::ptrdiff_t>(bytes_of(dtype_)));
        });
        return result;
    }

    // The same at one index of an axis.
    std::vector<unsigned char> bytes_at(std::size_t axis, int64_t index) const {
        const std::vector<unsigned char> all = bytes();
        std::size_t inner = bytes_of(dtype_);
        for (std::size_t i = axis + 1; i < sizes_.size(); ++i) inner *= static_cast<std::size_t>(sizes_[i]);
        std::vector<unsigned char> result;
        const std::size_t step = inner * static_cast<std::size_t>(sizes_[axis]);
        for (std::size_t at = inner * static_cast<std::size_t>(index); at < all.size(); at += step)
            result.insert(result.end(), all.begin() + static_cast<std::ptrdiff_t>(at),
                          all.begin() + static_cast<std::ptrdiff_t>(at + inner));
        return result;
    }

private:
    static constexpr unsigned char kGuard = 0xa5;
    static constexpr int64_t kGuardElements = 64;

    std::ptrdiff_t byte_of(int64_t element) const {
        return static_cast<std::ptrdiff_t>(element) * static_cast<std::ptrdiff_t>(bytes_of(dtype_));
    }

    template <typename F>
    void for_each(F visit) const {
        if (count() == 0) return;
        const std::size_t last = sizes_.size() - 1;
        std::vector<int64_t> index(last, 0);
        while (true) {
            int64_t element = origin_;
            for (std::size_t axis = 0; axis < last; ++axis) element += index[axis] * strides_[axis];
            for (int64_t i = 0; i < sizes_[last]; ++i) visit(element + i * strides_[last]);
            std::size_t axis = last;
            while (axis > 0 && ++index[axis - 1] == sizes_[axis - 1]) index[--axis] = 0;
            if (axis == 0) return;
        }
    }

    void set(int64_t element, double value) {
        unsigned char* place = storage_.data() + byte_of(element);
        const auto put = [&](auto stored) { std::memcpy(place, &stored, sizeof(stored)); };
        switch (dtype_) {
            case LATTN_FLOAT64:
                return put(value);
            case LATTN_FLOAT32:
                return put(static_cast<float>(value));
            default:
                return put(bits16(value, dtype_));
        }
    }

    double get(int64_t element) const {
        const unsigned char* place = storage_.data() + byte_of(element);
        const auto take = [&](auto stored) {
            std::memcpy(&stored, place, sizeof(stored));
            return stored;
        };
        switch (dtype_) {
            case LATTN_FLOAT64:
                return take(double{});
            case LATTN_FLOAT32:
                return static_cast<double>(take(float{}));
            default:
                return value16(take(uint16_t{}), dtype_);
        }
    }

    lattn_dtype dtype_;
    std::vector<int64_t> sizes_;
    std::vector<int64_t> strides_;
    int64_t origin_ = 0;
    std::vector<unsigned char> storage_;
    std::vector<unsigned char> owned_; // 1 for the bytes of elements
};

} // namespace lattn::test
