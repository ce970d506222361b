// Threads, barriers and operations of a warp on the emulator; that it reports what a kernel does wrong.
#include "gpu_emulator/emulator.h"

#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <vector>

#include "gpu_emulator/kernel_host.h"
#include "ptx/convert.cuh"
#include "ptx/dependent_launch.cuh"
#include "ptx/ldmatrix.cuh"
#include "ptx/mbarrier.cuh"
#include "ptx/named_barrier.cuh"
#include "ptx/register_count.cuh"
#include "ptx/stmatrix.cuh"

namespace lattn::emulator {
namespace {

namespace ptx = cuda::ptx;

constexpr Config kTwoWarps{.threads = 64, .shared_bytes = 4096};

bool contains(const std::string& text, const std::string& part) {
    return text.find(part) != std::string::npos;
}

// The order in which threads pass a barrier twice.
std::vector<unsigned> order(uint64_t seed) {
    std::vector<unsigned> threads;
    Config config = kTwoWarps;
    config.seed = seed;
    run(config, [&](char*) {
        threads.push_back(threadIdx.x);
        __syncthreads();
        threads.push_back(threadIdx.x);
    });
    return threads;
}

TEST(Emulator, RunsEveryThreadOfEveryBlock) {
    std::vector<int> runs(3 * 96);
    run({.blocks = 3, .threads = 96}, [&](char*) {
        EXPECT_EQ(3u, gridDim.x);
        EXPECT_EQ(96u, blockDim.x);
        const unsigned thread = threadIdx.x;
        __syncthreads();
        EXPECT_EQ(thread, threadIdx.x);
        ++runs[blockIdx.x * blockDim.x + threadIdx.x];
    });
    EXPECT_EQ(std::vector<int>(3 * 96, 1), runs);
}

TEST(Emulator, TheSeedDecidesTheOrder) {
    EXPECT_EQ(order(1), order(1));
    EXPECT_NE(order(1), order(2));
}

TEST(Emulator, TheKernelBeforeThisOneRunsWhenAllWaitForIt) {
    for (uint64_t seed = 0; seed < 6; ++seed) {
        bool has_run = false;
        int threads = 0;
        Config config = kTwoWarps;
        config.seed = seed;
        const auto prior = [&] {
            run({.blocks = 2, .threads = 96}, [&](char*) {
                __syncthreads();
                has_run = true;
            });
        };
        const auto kernel = [&](char*) {
            const unsigned thread = threadIdx.x;
            __syncthreads();
            EXPECT_FALSE(has_run);
            if (thread == 0) ptx::wait_for_prior_kernel();
            __syncthreads();
            EXPECT_TRUE(has_run);
            EXPECT_EQ(thread, threadIdx.x);
            EXPECT_EQ(64u, blockDim.x);
            ++threads;
        };
        run(config, kernel, prior);
        EXPECT_EQ(64, threads);
    }
}

TEST(Emulator, TheKernelBeforeOneThatDoesNotWaitRunsAfterIt) {
    bool has_run = false;
    run(
        kTwoWarps, [&](char*) { EXPECT_FALSE(has_run); }, [&] { has_run = true; });
    EXPECT_TRUE(has_run);
}

TEST(Emulator, AFailureOfTheKernelBeforeThisOneIsReported) {
    const auto fails = [] { throw Error("of the one before"); };
    EXPECT_THROW(run(
                     kTwoWarps, [](char*) { ptx::wait_for_prior_kernel(); }, fails),
                 Error);
    run(kTwoWarps, [](char*) { __syncthreads(); });
}

TEST(Emulator, SharedMemoryReadsAsNaNInEveryBlock) {
    run({.blocks = 2, .threads = 32, .shared_bytes = 64, .shared_base = 16}, [](char* shared) {
        float value;
        std::memcpy(&value, shared + 4, sizeof(value));
        EXPECT_TRUE(std::isnan(value));
        EXPECT_EQ(20u, ptx::shared_address(shared + 4));
        __syncthreads();
        if (threadIdx.x == 0) std::memset(shared, 0, 64);
    });
}

TEST(Emulator, AnExceptionOfOneThreadUnwindsTheOthers) {
    struct Counter {
        explicit Counter(int& count) : count_(count) { ++count_; }
        ~Counter() { --count_; }
        int& count_;
    };
    int alive = 0;
    const auto kernel = [&](char*) {
        const Counter counter(alive);
        if (threadIdx.x == 5) throw std::logic_error("thread 5");
        __syncthreads();
    };
    EXPECT_THROW(run(kTwoWarps, kernel), std::logic_error);
    EXPECT_EQ(0, alive);
}

TEST(Emulator, BarriersOrderWritesAndReads) {
    for_each_schedule({.threads = 128, .shared_bytes = 1024}, 8, [](const Config& config) {
        run(config, [](char* shared) {
            int* values = reinterpret_cast<int*>(shared);
            const auto thread = static_cast<int>(threadIdx.x);
            values[thread] = thread;
            __syncthreads();
            EXPECT_EQ((thread + 77) % 128, values[(thread + 77) % 128]);
            // Two barriers of 64 threads, used twice.
            for (int use = 1; use <= 2; ++use) {
                const int half = thread / 64 * 64;
                values[128 + thread] = use * thread;
                ptx::barrier_sync(1 + thread / 64, 64);
                const int other = half + (thread + 33) % 64;
                EXPECT_EQ(use * other, values[128 + other]);
                ptx::barrier_sync(1 + thread / 64, 64);
            }
        });
    });
}

TEST(Emulator, ShufflesTakeTheOtherLanesValue) {
    run(kTwoWarps, [](char*) {
        const auto lane = static_cast<int>(threadIdx.x % 32);
        EXPECT_EQ(static_cast<float>(lane ^ 5), __shfl_xor_sync(0xffffffffu, static_cast<float>(lane), 5));
        EXPECT_EQ(7, __shfl_sync(0xffffffffu, lane, 7));
        EXPECT_EQ(lane / 8 * 8 + 3, __shfl_sync(0xffffffffu, lane, 3, 8));
        // The two halves of a warp apart.
        const unsigned half = lane < 16 ? 0xffffu : 0xffff0000u;
        EXPECT_EQ(lane ^ 1, __shfl_xor_sync(half, lane, 1));
        __syncwarp(half);
    });
}

TEST(Emulator, SyncwarpDoesNotWaitForLanesThatEnded) {
    run(kTwoWarps, [](char*) {
        if (threadIdx.x % 32 >= 8) return;
        __syncwarp();
    });
}

// Rows of four 8 x 8 matrices one after the other; element (row, column) of matrix m is 64 m + 8 row + column.
void fill_matrices(char* shared) {
    for (int i = 0; i < 256; ++i) reinterpret_cast<uint16_t*>(shared)[i] = static_cast<uint16_t>(i);
}

TEST(Emulator, LdmatrixGivesTheFragmentsOfPtx) {
    for (const bool transposed : {false, true}) {
        run({.threads = 32, .shared_bytes = 512}, [&](char* shared) {
            if (threadIdx.x == 0) fill_matrices(shared);
            __syncwarp();
            const auto lane = static_cast<int>(threadIdx.x);
            uint32_t matrices[4];
            const uint32_t address = ptx::shared_address(shared) + threadIdx.x * 16;
            if (transposed)
                ptx::ldmatrix_x4_transposed(matrices, address);
            else
                ptx::ldmatrix_x4(matrices, address);
            for (int matrix = 0; matrix < 4; ++matrix) {
                for (int half = 0; half < 2; ++half) {
                    const int row = transposed ? lane % 4 * 2 + half : lane / 4;
                    const int column = transposed ? lane / 4 : lane % 4 * 2 + half;
                    EXPECT_EQ(static_cast<uint32_t>(matrix * 64 + row * 8 + column),
                              matrices[matrix] >> half * 16 & 0xffff);
                }
            }
        });
    }
}

TEST(Emulator, StmatrixIsTheInverseOfLdmatrix) {
    run({.threads = 32, .shared_bytes = 1024}, [](char* shared) {
        if (threadIdx.x == 0) fill_matrices(shared);
        __syncwarp();
        uint32_t matrices[4];
        ptx::ldmatrix_x4(matrices, ptx::shared_address(shared) + threadIdx.x * 16);
        // Rows in the opposite order.
        ptx::stmatrix_x4(ptx::shared_address(shared) + 512 + (31 - threadIdx.x) * 16, matrices);
        const uint16_t* stored = reinterpret_cast<const uint16_t*>(shared + 512);
        for (unsigned column = 0; column < 8; ++column)
            EXPECT_EQ(threadIdx.x * 8 + column, stored[(31 - threadIdx.x) * 8 + column]);
    });
}

TEST(Emulator, ConversionsRoundAsPtxSays) {
    EXPECT_EQ(0x3f80'4000u, ptx::pack_bf16(2.0f, 1.0f));
    EXPECT_EQ(0x3f80u, ptx::pack_bf16(1.00390625f, 0.0f)) << "a tie goes to the even neighbour";
    EXPECT_EQ(0x3f82u, ptx::pack_bf16(1.01171875f, 0.0f)) << "a tie goes to the even neighbour";
    EXPECT_EQ(1.0f, ptx::unpack_bf16(0x3f80'4000u).y);
    EXPECT_EQ(2.0f, ptx::unpack_bf16(0x3f80'4000u).x);
    EXPECT_EQ(0x3c00'c000u, ptx::pack_half(-2.0f, 1.0f));
    EXPECT_EQ(0x3c02u, ptx::pack_half(1.00146484375f, 0.0f)) << "a tie goes to the even neighbour";
    EXPECT_EQ(0x7c00u, ptx::pack_half(65520.0f, 0.0f));
    EXPECT_EQ(1.0f, ptx::unpack_half(0x3c00'c000u).y);
    EXPECT_EQ(-2.0f, ptx::unpack_half(0x3c00'c000u).x);
    EXPECT_EQ(0x3f80'2000u, ptx::round_to_tf32(std::bit_cast<float>(0x3f80'1000u))) << "a tie goes away from zero";
    EXPECT_EQ(0x3f80'0000u, ptx::round_to_tf32(std::bit_cast<float>(0x3f80'0fffu)));
    EXPECT_EQ(0x7f80'0000u, ptx::round_to_tf32(std::bit_cast<float>(0x7f80'0000u)));
}

TEST(Emulator, MbarrierWaitsFollowParity) {
    for_each_schedule(kTwoWarps, 8, [](const Config& config) {
        run(config, [](char* shared) {
            auto& barrier = *reinterpret_cast<ptx::Mbarrier*>(shared);
            int& value = *reinterpret_cast<int*>(shared + 8);
            if (threadIdx.x == 0) ptx::mbarrier_init(barrier, 33);
            __syncthreads();
            ptx::mbarrier_wait(barrier, 1); // of the phase before the first
            __syncthreads();
            for (int phase = 0; phase < 3; ++phase) {
                if (threadIdx.x == 0) value = phase;
                if (threadIdx.x <= 32) ptx::mbarrier_arrive(barrier);
                ptx::mbarrier_wait(barrier, static_cast<uint32_t>(phase % 2));
                EXPECT_EQ(phase, value);
                __syncthreads();
            }
        });
    });
}

TEST(EmulatorErrors, DeadlockListsWhatEachWarpWaitsFor) {
    const std::string error = error_of({.threads = 96, .shared_bytes = 64}, [](char* shared) {
        auto& barrier = *reinterpret_cast<ptx::Mbarrier*>(shared);
        if (threadIdx.x == 0) ptx::mbarrier_init(barrier, 2);
        ptx::barrier_sync(1, 96);
        if (threadIdx.x == 0) ptx::mbarrier_arrive(barrier);
        if (threadIdx.x < 32) ptx::mbarrier_wait(barrier, 0);
        if (threadIdx.x < 40) ptx::barrier_sync(3, 64);
        if (threadIdx.x >= 90) __shfl_sync(0xffffffffu, 0, 0);
    });
    EXPECT_TRUE(contains(error, "deadlock")) << error;
    EXPECT_TRUE(contains(error,
                         "warp 0, lanes 0 to 31: mbarrier at 0, parity 0 (in phase 0, 1 of 2 arrivals and 0 "
                         "bytes outstanding)"))
        << error;
    EXPECT_TRUE(contains(error, "warp 1, lanes 0 to 7: barrier 3 (8 of 64 threads are there)")) << error;
    EXPECT_TRUE(contains(error, "warp 1, lanes 8 to 31: ended")) << error;
    EXPECT_TRUE(contains(error, "warp 2, lanes 26 to 31: shuffle of the warp")) << error;
}

TEST(EmulatorErrors, LanesAtDifferentOperations) {
    const std::string error = error_of(kTwoWarps, [](char* shared) {
        uint32_t matrices[4] = {};
        if (threadIdx.x % 32 == 3)
            ptx::stmatrix_x4(ptx::shared_address(shared), matrices);
        else
            ptx::ldmatrix_x4(matrices, ptx::shared_address(shared));
    });
    EXPECT_TRUE(contains(error, "other lanes of the warp are at another operation")) << error;
}

TEST(EmulatorErrors, AddressesOutsideOfMemoryOrUnaligned) {
    const auto load = [](uint32_t address) {
        return error_of(kTwoWarps, [=](char*) {
            uint32_t matrices[4];
            ptx::ldmatrix_x4(matrices, address);
        });
    };
    EXPECT_EQ("", load(4080));
    EXPECT_TRUE(contains(load(4096), "ldmatrix: 16 bytes at 4096 are not in shared memory"));
    EXPECT_TRUE(contains(load(8), "ldmatrix: address 8 is not a multiple of 16"));
    int local = 0;
    EXPECT_TRUE(contains(error_of(kTwoWarps, [&](char*) { ptx::shared_address(&local); }), "not into shared memory"));
    EXPECT_TRUE(contains(error_of(kTwoWarps, [](char* shared) { shared[4096] = 0; }), "bytes after shared memory"));
    EXPECT_TRUE(contains(error_of(kTwoWarps, [](char* shared) { shared[-1] = 0; }), "bytes before shared memory"));
}

TEST(EmulatorErrors, MisusedMbarriers) {
    const auto use = [](auto&& body) {
        return error_of(kTwoWarps, [&](char* shared) {
            if (threadIdx.x != 0) return;
            auto& barrier = *reinterpret_cast<ptx::Mbarrier*>(shared);
            body(barrier);
        });
    };
    EXPECT_TRUE(contains(use([](auto& barrier) { ptx::mbarrier_arrive(barrier); }), "no mbarrier at 0"));
    EXPECT_TRUE(contains(use([](auto& barrier) {
                             ptx::mbarrier_init(barrier, 1);
                             ptx::mbarrier_init(barrier, 1);
                         }),
                         "is in use"));
    EXPECT_TRUE(contains(use([](auto& barrier) {
                             ptx::mbarrier_init(barrier, 1);
                             barrier = 0;
                             ptx::mbarrier_wait(barrier, 1);
                         }),
                         "was overwritten"));
    EXPECT_TRUE(contains(use([](auto& barrier) {
                             ptx::mbarrier_init(barrier, 1);
                             ptx::mbarrier_arrive_expect_bytes(barrier, 16);
                             ptx::mbarrier_arrive(barrier);
                         }),
                         "more than the 1 arrivals"));
    EXPECT_TRUE(contains(use([](auto& barrier) {
                             ptx::mbarrier_init(barrier, 1);
                             ptx::mbarrier_arrive_expect_bytes(barrier, 1u << 20);
                         }),
                         "more than 1048575 bytes"));
    EXPECT_TRUE(contains(error_of(kTwoWarps, [](char*) { mbarrier_init(4, 1); }), "address 4 is not a multiple of 8"));
}

TEST(EmulatorErrors, BarriersThatDisagreeAboutTheirThreads) {
    const std::string error = error_of(kTwoWarps, [](char*) { ptx::barrier_sync(1, threadIdx.x < 32 ? 64 : 32); });
    EXPECT_TRUE(contains(error, "bar.sync: barrier 1 for ")) << error;
}

TEST(EmulatorErrors, RegistersThatNobodyGives) {
    const auto move = [](bool too_many) {
        return error_of({.threads = 384}, [=](char*) {
            if (threadIdx.x >= 256)
                ptx::give_registers<24>();
            else if (too_many)
                ptx::take_registers<248>();
            else
                ptx::take_registers<240>();
        });
    };
    EXPECT_EQ("", move(false));
    EXPECT_TRUE(contains(move(true), "deadlock")) << move(true);
    EXPECT_TRUE(contains(move(true), "248 registers per thread")) << move(true);
    EXPECT_TRUE(contains(error_of({.threads = 160},
                                  [](char*) {
                                      if (threadIdx.x >= 128) ptx::take_registers<240>();
                                  }),
                         "no four warps"));
}

} // namespace
} // namespace lattn::emulator
