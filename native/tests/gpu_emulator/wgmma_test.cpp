// Warpgroup products on the emulator, against plain loops.
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <random>
#include <string>
#include <vector>

#include "gpu_emulator/kernel_host.h"
#include "ptx/convert.cuh"
#include "ptx/tensor_copy.cuh"
#include "ptx/wgmma.cuh"

namespace lattn::emulator {
namespace {

namespace ptx = cuda::ptx;

constexpr int kRows = 64;
constexpr int kDepth = 64;

bool contains(const std::string& text, const std::string& part) {
    return text.find(part) != std::string::npos;
}

template <typename T>
T from_float(float value);
template <>
__half from_float<__half>(float value) {
    return __float2half_rn(value);
}
template <>
__nv_bfloat16 from_float<__nv_bfloat16>(float value) {
    return __float2bfloat16_rn(value);
}

float to_float(__half value) {
    return __half2float(value);
}
float to_float(__nv_bfloat16 value) {
    return __bfloat162float(value);
}

template <typename T>
std::vector<T> random_matrix(int count, unsigned seed) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal;
    std::vector<T> values(static_cast<std::size_t>(count));
    for (T& value : values) value = from_float<T>(normal(random));
    return values;
}

template <typename T>
uint32_t pair_of(const T* pair) {
    return uint32_t{std::bit_cast<uint16_t>(pair[1])} << 16 | std::bit_cast<uint16_t>(pair[0]);
}

// What a kernel leaves out.
struct Faults {
    bool fence = false;
    bool wait = false;
    bool early_release = false;
    bool accumulator_written = false;
};

template <typename T>
struct ProductParams {
    ptx::TensorMap b; // [N][depth] or [depth][N], boxes of 64 x 64
    const T* a;       // [64][depth]
    float* out;       // [64][N]
    float initial;    // of the accumulators, kept if `accumulate`
    bool accumulate;
    Faults faults;
};

// out = initial + a b over kDepth; b is loaded, used, and loaded over by what lies behind it.
template <typename T, ptx::BOrder kOrder, int kN>
struct ProductKernel {
    static constexpr int kTileBytes = 64 * 128;
    static constexpr int kTiles = kN / 64;

    struct Shared {
        char b[kTiles * kTileBytes];
        ptx::Mbarrier full;
        ptx::Mbarrier empty;
    };

    static void load(const ProductParams<T>& p, Shared& shared, int first_row) {
        ptx::mbarrier_arrive_expect_bytes(shared.full, kTiles * kTileBytes);
        for (int tile = 0; tile < kTiles; ++tile) {
            const ptx::Coordinates at = kOrder == ptx::BOrder::kKContiguous
                                            ? ptx::Coordinates{0, first_row + tile * 64, 0, 0}
                                            : ptx::Coordinates{tile * 64, first_row, 0, 0};
            ptx::load_box(shared.b + tile * kTileBytes, p.b, shared.full, at);
        }
    }

    static void multiply(const ProductParams<T>& p, Shared& shared, float (&acc)[kN / 2]) {
        const auto lane = static_cast<int>(threadIdx.x % 32);
        const int row = static_cast<int>(threadIdx.x / 32) * 16 + lane / 4;
        const uint32_t base = ptx::shared_address(shared.b);
        for (int step = 0; step < kDepth / 16; ++step) {
            uint32_t a[4];
            for (int i = 0; i < 4; ++i)
                a[i] = pair_of(p.a + (row + i % 2 * 8) * kDepth + step * 16 + i / 2 * 8 + lane % 4 * 2);
            const auto offset = static_cast<uint32_t>(kOrder == ptx::BOrder::kKContiguous ? step * 32 : step * 2048);
            ptx::Wgmma<T, kOrder>::multiply(acc, a, ptx::wgmma_operand(base + offset, kTileBytes),
                                            p.accumulate || step > 0);
        }
        ptx::wgmma_commit();
    }

    static void run(const ProductParams<T>& p, char* memory) {
        Shared& shared = *reinterpret_cast<Shared*>(memory);
        if (threadIdx.x == 0) {
            ptx::mbarrier_init(shared.full, 1);
            ptx::mbarrier_init(shared.empty, 128);
            ptx::fence_mbarrier_init();
        }
        __syncthreads();
        if (threadIdx.x >= 128) {
            if (threadIdx.x > 128) return;
            load(p, shared, 0);
            ptx::mbarrier_wait(shared.empty, 0);
            load(p, shared, kOrder == ptx::BOrder::kKContiguous ? kN : kDepth); // outside: zeros
            ptx::mbarrier_wait(shared.full, 1);
            return;
        }
        float acc[kN / 2];
        for (float& value : acc) value = p.initial;
        ptx::mbarrier_wait(shared.full, 0);
        if (!p.faults.fence) ptx::wgmma_fence();
        multiply(p, shared, acc);
        if (p.faults.early_release) ptx::mbarrier_arrive(shared.empty);
        if (p.faults.accumulator_written) acc[3] += 1.0f;
        if (p.faults.wait) write(p, acc);
        ptx::wgmma_wait<0>();
        ptx::touch(acc);
        if (!p.faults.early_release) ptx::mbarrier_arrive(shared.empty);
        if (!p.faults.wait) write(p, acc);
    }

    static void write(const ProductParams<T>& p, const float (&acc)[kN / 2]) {
        const auto lane = static_cast<int>(threadIdx.x % 32);
        const int row = static_cast<int>(threadIdx.x / 32) * 16 + lane / 4;
        for (int i = 0; i < kN / 2; ++i) p.out[(row + i / 2 % 2 * 8) * kN + i / 4 * 8 + lane % 4 * 2 + i % 2] = acc[i];
    }
};

template <typename T, ptx::BOrder kOrder, int kN>
class Product {
public:
    using Kernel = ProductKernel<T, kOrder, kN>;

    explicit Product(bool accumulate) : accumulate_(accumulate) {
        for (int row = 0; row < kRows; ++row) {
            for (int n = 0; n < kN; ++n) {
                double sum = accumulate ? kInitial : 0;
                for (int k = 0; k < kDepth; ++k)
                    sum += double{to_float(a_[row * kDepth + k])} *
                           to_float(b_[kOrder == ptx::BOrder::kKContiguous ? n * kDepth + k : k * kN + n]);
                expected_.push_back(sum);
            }
        }
    }

    static Config config(Timing timing = Timing::kLate) {
        return {.threads = 160, .shared_bytes = sizeof(typename Kernel::Shared), .timing = timing};
    }

    void run(const Config& config, const Faults& faults = {}) {
        constexpr bool kByRow = kOrder == ptx::BOrder::kKContiguous;
        constexpr int64_t kInner = kByRow ? kDepth : kN;
        constexpr int64_t kOuter = kByRow ? kN : kDepth;
        const ptx::TensorMap map = make_tensor_map({.data = b_.data(),
                                                    .element_bytes = 2,
                                                    .sizes = {kInner, kOuter, 1, 1},
                                                    .strides_bytes = {2, kInner * 2, 0, 0},
                                                    .box = {64, 64, 1, 1}});
        std::fill(out_.begin(), out_.end(), std::nanf(""));
        launch<Kernel>(config, ProductParams<T>{map, a_.data(), out_.data(), kInitial, accumulate_, faults});
    }

    std::string error(const Config& config, const Faults& faults) {
        try {
            run(config, faults);
        } catch (const Error& e) {
            return e.what();
        }
        return "";
    }

    bool is_right() const {
        for (std::size_t i = 0; i < out_.size(); ++i) {
            if (!(std::abs(out_[i] - expected_[i]) < 1e-4)) return false;
        }
        return true;
    }

private:
    static constexpr float kInitial = 2.5f;

    bool accumulate_;
    std::vector<T> a_ = random_matrix<T>(kRows * kDepth, 1);
    std::vector<T> b_ = random_matrix<T>(kDepth * kN, 2);
    std::vector<double> expected_;
    std::vector<float> out_ = std::vector<float>(kRows * kN);
};

template <typename T, ptx::BOrder kOrder, int kN>
void expect_right_products() {
    for (const bool accumulate : {false, true}) {
        Product<T, kOrder, kN> product(accumulate);
        for_each_schedule(product.config(), 4, [&](const Config& config) {
            product.run(config);
            EXPECT_TRUE(product.is_right());
        });
    }
}

using ByRow = Product<__nv_bfloat16, ptx::BOrder::kKContiguous, 64>;

TEST(Wgmma, KContiguousOperands) {
    expect_right_products<__nv_bfloat16, ptx::BOrder::kKContiguous, 64>();
    expect_right_products<__nv_bfloat16, ptx::BOrder::kKContiguous, 128>();
    expect_right_products<__half, ptx::BOrder::kKContiguous, 64>();
    expect_right_products<__half, ptx::BOrder::kKContiguous, 128>();
}

TEST(Wgmma, NContiguousOperands) {
    expect_right_products<__nv_bfloat16, ptx::BOrder::kNContiguous, 64>();
    expect_right_products<__nv_bfloat16, ptx::BOrder::kNContiguous, 128>();
    expect_right_products<__half, ptx::BOrder::kNContiguous, 64>();
    expect_right_products<__half, ptx::BOrder::kNContiguous, 128>();
}

TEST(Wgmma, AccumulatorsAreNaNUntilTheyAreWaitedFor) {
    ByRow product(true);
    for_each_schedule(product.config(), 2, [&](const Config& config) {
        product.run(config, {.wait = true});
        EXPECT_FALSE(product.is_right());
    });
}

TEST(Wgmma, OperandsAreReadUntilProductsAreWaitedFor) {
    ByRow product(false);
    product.run(product.config(Timing::kLate), {.early_release = true});
    EXPECT_FALSE(product.is_right());
}

TEST(WgmmaErrors, AccumulatorsInUse) {
    ByRow product(true);
    for_each_schedule(product.config(), 2, [&](const Config& config) {
        EXPECT_TRUE(contains(product.error(config, {.accumulator_written = true}), "accumulators were written"));
        EXPECT_TRUE(contains(product.error(config, {.fence = true}), "wgmma_fence() is missing"));
    });
}

std::string error_of_group(const std::function<void(float (&acc)[32], const uint32_t (&a)[4])>& body) {
    return error_of({.threads = 128, .shared_bytes = 8192}, [&](char*) {
        float acc[32] = {};
        const uint32_t a[4] = {};
        ptx::wgmma_fence();
        body(acc, a);
    });
}

TEST(WgmmaErrors, DescriptorsThatTheHardwareDoesNotTakeOrThatMeanAnotherPlace) {
    using Op = ptx::Wgmma<__nv_bfloat16, ptx::BOrder::kKContiguous>;
    const auto use = [](uint64_t descriptor) {
        return error_of_group([=](float(&acc)[32], const uint32_t(&a)[4]) {
            Op::multiply(acc, a, descriptor, false);
            ptx::wgmma_commit();
            ptx::wgmma_wait<0>();
        });
    };
    const uint64_t good = ptx::wgmma_operand(0, 8192);
    EXPECT_EQ("", use(good));
    EXPECT_TRUE(contains(use(good ^ uint64_t{3} << 62), "swizzle mode"));
    EXPECT_TRUE(contains(use(good | uint64_t{1} << 49), "base offset"));
    EXPECT_TRUE(contains(use(good | uint64_t{1} << 30), "unused bits"));
    EXPECT_TRUE(contains(use(ptx::wgmma_operand(128, 8192)), "does not start in the first row"));
    EXPECT_TRUE(contains(use(ptx::wgmma_operand(1024, 8192)), "wgmma: 16 bytes at 8192 are not in shared memory"));
}

TEST(WgmmaErrors, ThreadsOfAGroupThatDiverge) {
    using Op = ptx::Wgmma<__nv_bfloat16, ptx::BOrder::kKContiguous>;
    const uint64_t b = ptx::wgmma_operand(0, 8192);
    EXPECT_TRUE(contains(error_of_group([&](float(&)[32], const uint32_t(&)[4]) {
                             if (threadIdx.x == 7)
                                 ptx::wgmma_commit();
                             else
                                 ptx::wgmma_fence();
                         }),
                         "other threads of the warpgroup are at"));
    EXPECT_TRUE(contains(error_of_group([&](float(&acc)[32], const uint32_t(&a)[4]) {
                             Op::multiply(acc, a, b, threadIdx.x < 64);
                             ptx::wgmma_commit();
                             ptx::wgmma_wait<0>();
                         }),
                         "disagree about"));
    EXPECT_TRUE(contains(error_of_group([&](float(&)[32], const uint32_t(&)[4]) {
                             if (threadIdx.x < 96) ptx::wgmma_commit();
                         }),
                         "only 96 of 128 threads came to wgmma.commit_group"));
    const std::string stuck = error_of_group([&](float(&acc)[32], const uint32_t(&a)[4]) {
        if (threadIdx.x >= 96) return;
        Op::multiply(acc, a, b, false);
        ptx::wgmma_commit();
        ptx::wgmma_wait<0>();
    });
    EXPECT_TRUE(contains(stuck, "deadlock")) << stuck;
    EXPECT_TRUE(contains(stuck, "wgmma products that other threads of warpgroup 0 have not issued")) << stuck;
}

TEST(WgmmaErrors, ThreadsThatEndTooEarly) {
    using Op = ptx::Wgmma<__nv_bfloat16, ptx::BOrder::kKContiguous>;
    EXPECT_TRUE(contains(error_of_group([](float(&acc)[32], const uint32_t(&a)[4]) {
                             Op::multiply(acc, a, ptx::wgmma_operand(0, 8192), false);
                             ptx::wgmma_wait<0>(); // of a group that was not committed
                         }),
                         "ended without waiting"));
}

} // namespace
} // namespace lattn::emulator
