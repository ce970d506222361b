// Copies of boxes on the emulator, against plain loops.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

#include "gpu_emulator/kernel_host.h"
#include "ptx/stmatrix.cuh"
#include "ptx/tensor_copy.cuh"

namespace lattn::emulator {
namespace {

namespace ptx = cuda::ptx;

bool contains(const std::string& text, const std::string& part) {
    return text.find(part) != std::string::npos;
}

// A tensor of 16-bit elements [w][z][y][x] whose rows are longer than x.
struct Tensor {
    static constexpr int64_t kSizes[4] = {100, 70, 3, 2};
    static constexpr int64_t kStrides[4] = {1, 104, 104 * 71, 104 * 71 * 3};

    std::vector<uint16_t> data = std::vector<uint16_t>(kStrides[3] * kSizes[3]);

    Tensor() {
        for (std::size_t i = 0; i < data.size(); ++i) data[i] = static_cast<uint16_t>(1 + i % 65000);
    }

    // Its element, or 0 outside.
    uint16_t at(const int64_t (&index)[4]) const {
        for (int axis = 0; axis < 4; ++axis) {
            if (index[axis] < 0 || index[axis] >= kSizes[axis]) return 0;
        }
        return data[offset(index)];
    }

    static std::size_t offset(const int64_t (&index)[4]) {
        int64_t sum = 0;
        for (int axis = 0; axis < 4; ++axis) sum += index[axis] * kStrides[axis];
        return static_cast<std::size_t>(sum);
    }

    ptx::TensorMap map(const int32_t (&box)[4], bool swizzled = true) {
        return make_tensor_map({.data = data.data(),
                                .element_bytes = 2,
                                .sizes = {kSizes[0], kSizes[1], kSizes[2], kSizes[3]},
                                .strides_bytes = {2, kStrides[1] * 2, kStrides[2] * 2, kStrides[3] * 2},
                                .box = {box[0], box[1], box[2], box[3]},
                                .swizzled = swizzled});
    }
};

// Calls visit(index in the tensor, byte offset in shared memory) for every element of a box.
template <typename Visit>
void for_each_element(const int32_t (&box)[4], ptx::Coordinates at, bool swizzled, Visit visit) {
    int64_t position = 0;
    for (int w = 0; w < box[3]; ++w) {
        for (int z = 0; z < box[2]; ++z) {
            for (int y = 0; y < box[1]; ++y) {
                for (int x = 0; x < box[0]; ++x, ++position) {
                    const int64_t index[4] = {at.x + x, at.y + y, at.z + z, at.w + w};
                    // A row of 128 bytes is 8 parts of 16 bytes, of which row r has part p at p XOR (r modulo 8).
                    const int64_t row = position / 64;
                    const int64_t part = position % 64 / 8;
                    const int64_t place = swizzled ? row * 64 + (part ^ row % 8) * 8 + position % 8 : position;
                    visit(index, place * 2);
                }
            }
        }
    }
}

struct Shared {
    char box[16 * 1024];
    ptx::Mbarrier full;
};

constexpr Config kConfig{.threads = 64, .shared_bytes = sizeof(Shared)};

struct CopyParams {
    ptx::TensorMap in;
    ptx::TensorMap out;
    ptx::Coordinates from;
    ptx::Coordinates to;
    uint32_t bytes;
};

struct CopyKernel {
    static void run(const CopyParams& p, char* memory) {
        Shared& shared = *reinterpret_cast<Shared*>(memory);
        if (threadIdx.x == 0) {
            ptx::mbarrier_init(shared.full, 1);
            ptx::fence_mbarrier_init();
            ptx::mbarrier_arrive_expect_bytes(shared.full, p.bytes);
            ptx::load_box(shared.box, p.in, shared.full, p.from);
        }
        __syncthreads();
        ptx::mbarrier_wait(shared.full, 0);
        if (threadIdx.x != 32) return;
        ptx::store_box(p.out, shared.box, p.to);
        ptx::commit_stores();
        ptx::wait_stores_read<0>();
        std::memset(shared.box, 0xff, sizeof(shared.box));
        ptx::wait_stores();
    }
};

void expect_loaded(const int32_t (&box)[4], ptx::Coordinates at, bool swizzled) {
    Tensor tensor;
    const ptx::TensorMap map = tensor.map(box, swizzled);
    const auto bytes = static_cast<uint32_t>(box[0] * box[1] * box[2] * box[3] * 2);
    for_each_schedule(kConfig, 2, [&](const Config& config) {
        run(config, [&](char* memory) {
            Shared& shared = *reinterpret_cast<Shared*>(memory);
            if (threadIdx.x == 0) {
                ptx::mbarrier_init(shared.full, 1);
                ptx::fence_mbarrier_init();
                ptx::mbarrier_arrive_expect_bytes(shared.full, bytes);
                ptx::prefetch_map(map);
                ptx::load_box(shared.box, map, shared.full, at);
            }
            __syncthreads();
            ptx::mbarrier_wait(shared.full, 0);
            if (threadIdx.x != 63) return;
            int64_t wrong = 0;
            for_each_element(box, at, swizzled, [&](const int64_t(&index)[4], int64_t offset) {
                uint16_t value;
                std::memcpy(&value, shared.box + offset, sizeof(value));
                wrong += value != tensor.at(index);
            });
            EXPECT_EQ(0, wrong);
        });
    });
}

TEST(TensorCopy, LoadsWholeBoxes) {
    expect_loaded({64, 64, 1, 1}, {0, 0, 0, 0}, true);
    expect_loaded({64, 64, 1, 1}, {8, 5, 2, 1}, true);
    expect_loaded({64, 8, 3, 2}, {30, 60, 0, 0}, true);
    expect_loaded({32, 8, 3, 2}, {1, 2, 0, 0}, false);
}

TEST(TensorCopy, LoadsZerosOutsideOfTheTensor) {
    expect_loaded({64, 64, 1, 1}, {64, 64, 1, 1}, true);
    expect_loaded({64, 64, 1, 1}, {-3, -7, 0, 0}, true);
    expect_loaded({64, 8, 2, 2}, {77, 66, 2, 1}, true);
    expect_loaded({64, 64, 1, 1}, {0, 0, 0, 2}, true);
    expect_loaded({64, 64, 1, 1}, {0, 0, -1, 0}, true);
    expect_loaded({16, 16, 2, 1}, {-8, 60, -1, 1}, false);
}

TEST(TensorCopy, StoresOnlyInsideOfTheTensor) {
    constexpr int32_t kBox[4] = {64, 64, 1, 1};
    const ptx::Coordinates from{0, 0, 1, 0};
    const ptx::Coordinates places[] = {{0, 0, 0, 0}, {64, 32, 2, 1}, {-5, -9, 1, 1}, {90, 69, 0, 0}, {0, 70, 0, 0}};
    for (const ptx::Coordinates& to : places) {
        for_each_schedule(kConfig, 2, [&](const Config& config) {
            Tensor source;
            Tensor destination;
            std::fill(destination.data.begin(), destination.data.end(), uint16_t{7});
            std::vector<uint16_t> expected = destination.data;
            for_each_element(kBox, {0, 0, 0, 0}, false, [&](const int64_t(&index)[4], int64_t) {
                const int64_t in[4] = {from.x + index[0], from.y + index[1], from.z, from.w};
                const int64_t out[4] = {to.x + index[0], to.y + index[1], to.z, to.w};
                if (destination.at(out) != 0) expected[Tensor::offset(out)] = source.at(in);
            });
            launch<CopyKernel>(config, CopyParams{source.map(kBox), destination.map(kBox), from, to, 8192});
            EXPECT_EQ(expected, destination.data);
        });
    }
}

// Axes x, i, n with the same stride for i and n: a box from (8 - m, n) on has the m rows before n.
TEST(TensorCopy, BoxesEndWhereOverlappingAxesDo) {
    constexpr int64_t kRows = 50;
    constexpr int32_t kBoxRows = 8;
    std::vector<uint16_t> in(kRows * 64);
    for (std::size_t i = 0; i < in.size(); ++i) in[i] = static_cast<uint16_t>(1 + i);
    const auto map = [](std::vector<uint16_t>& rows) {
        return make_tensor_map({.data = rows.data() - ptrdiff_t{kBoxRows} * 64,
                                .element_bytes = 2,
                                .sizes = {64, kBoxRows, kRows + 1, 1},
                                .strides_bytes = {2, 128, 128, 128},
                                .box = {64, kBoxRows, 1, 1}});
    };
    for (const int end : {1, 7, 30, 50}) {
        for (const int rows : {1, 3, 8}) {
            if (rows > end) continue;
            std::vector<uint16_t> out(in.size(), 7);
            std::vector<uint16_t> expected = out;
            const auto first = static_cast<ptrdiff_t>(end - rows) * 64;
            std::copy_n(in.begin() + first, rows * 64, expected.begin() + first);
            const ptx::Coordinates at{0, kBoxRows - rows, end, 0};
            for_each_schedule(kConfig, 2, [&](const Config& config) {
                launch<CopyKernel>(config, CopyParams{map(in), map(out), at, at, kBoxRows * 128});
                EXPECT_EQ(expected, out);
            });
        }
    }
}

// A producer thread and 32 consumers over a ring of two stages; sums of the boxes' first elements.
struct PipelineParams {
    ptx::TensorMap in;
    int64_t* sums; // [32]
    bool waits_for_full;
    bool waits_for_empty;
};

struct PipelineKernel {
    static constexpr int kBoxes = 10;
    static constexpr int kStages = 2;

    struct Shared {
        uint16_t stage[kStages][64 * 8];
        ptx::Mbarrier full[kStages];
        ptx::Mbarrier empty[kStages];
    };

    static void run(const PipelineParams& p, char* memory) {
        Shared& shared = *reinterpret_cast<Shared*>(memory);
        if (threadIdx.x == 0) {
            for (int stage = 0; stage < kStages; ++stage) {
                ptx::mbarrier_init(shared.full[stage], 1);
                ptx::mbarrier_init(shared.empty[stage], 32);
            }
            ptx::fence_mbarrier_init();
        }
        __syncthreads();
        if (threadIdx.x > 32) return;
        int64_t sum = 0;
        for (int box = 0; box < kBoxes; ++box) {
            const int stage = box % kStages;
            const auto parity = static_cast<uint32_t>(box / kStages % 2);
            if (threadIdx.x == 32) {
                if (p.waits_for_empty) ptx::mbarrier_wait(shared.empty[stage], parity ^ 1);
                ptx::mbarrier_arrive_expect_bytes(shared.full[stage], 1024);
                ptx::load_box(shared.stage[stage], p.in, shared.full[stage], {0, box, 0, 0});
            } else {
                if (p.waits_for_full) ptx::mbarrier_wait(shared.full[stage], parity);
                sum = sum * 3 + shared.stage[stage][threadIdx.x % 8];
                ptx::mbarrier_arrive(shared.empty[stage]);
            }
        }
        if (threadIdx.x < 32) p.sums[threadIdx.x] = sum;
    }
};

// Whether the pipeline gives the right sums.
bool pipeline_is_right(const Config& config, bool waits_for_full, bool waits_for_empty) {
    Tensor tensor;
    std::vector<int64_t> sums(32);
    std::vector<int64_t> expected(32);
    for (int box = 0; box < PipelineKernel::kBoxes; ++box) {
        for (std::size_t thread = 0; thread < 32; ++thread)
            expected[thread] = expected[thread] * 3 + tensor.at({static_cast<int64_t>(thread % 8), box, 0, 0});
    }
    const PipelineParams params{tensor.map({64, 8, 1, 1}), sums.data(), waits_for_full, waits_for_empty};
    return error_of(config, [&](char* shared) { PipelineKernel::run(params, shared); }).empty() && sums == expected;
}

constexpr Config kPipeline{.threads = 64, .shared_bytes = sizeof(PipelineKernel::Shared)};

TEST(TensorCopy, AProducerFeedsConsumersThroughARing) {
    for_each_schedule(kPipeline, 16, [](const Config& config) { EXPECT_TRUE(pipeline_is_right(config, true, true)); });
}

TEST(TensorCopy, AMissingWaitGivesWrongResults) {
    Config config = kPipeline;
    config.timing = Timing::kLate;
    EXPECT_FALSE(pipeline_is_right(config, false, true)) << "reads before the box is there";
    config.timing = Timing::kEarly;
    EXPECT_FALSE(pipeline_is_right(config, true, false)) << "loads into a stage that is still read";
}

TEST(TensorCopyErrors, RulesOfTheDriver) {
    Tensor tensor;
    const auto error = [](const TensorLayout& layout) -> std::string {
        try {
            make_tensor_map(layout);
        } catch (const Error& e) {
            return e.what();
        }
        return "";
    };
    const TensorLayout good{tensor.data.data(), 2, {64, 64, 1, 1}, {2, 208, 208, 208}, {64, 64, 1, 1}};
    EXPECT_EQ("", error(good));
    TensorLayout bad = good;
    bad.data = tensor.data.data() + 1;
    EXPECT_TRUE(contains(error(bad), "multiple of 16 bytes"));
    bad = good;
    bad.strides_bytes[1] = 200;
    EXPECT_TRUE(contains(error(bad), "axis 1: stride"));
    bad = good;
    bad.box[0] = 32;
    EXPECT_TRUE(contains(error(bad), "does not have 128 bytes"));
    bad = good;
    bad.box[1] = 257;
    EXPECT_TRUE(contains(error(bad), "axis 1: box size"));
    bad = good;
    bad.sizes[2] = 0;
    EXPECT_TRUE(contains(error(bad), "axis 2: size"));
}

TEST(TensorCopyErrors, MisusedCopies) {
    Tensor tensor;
    const ptx::TensorMap map = tensor.map({64, 64, 1, 1});
    Config config = kConfig;
    config.timing = Timing::kLate;
    const auto use = [&](auto&& body) {
        return error_of(config, [&](char* memory) {
            if (threadIdx.x != 0) return;
            Shared& shared = *reinterpret_cast<Shared*>(memory);
            ptx::mbarrier_init(shared.full, 1);
            body(shared);
        });
    };
    EXPECT_TRUE(contains(use([&](Shared& s) {
                             ptx::load_box(s.box, map, s.full, {0, 0, 0, 0});
                         }),
                         "fence_mbarrier_init() was not called"));
    EXPECT_TRUE(contains(use([&](Shared& s) {
                             ptx::fence_mbarrier_init();
                             ptx::load_box(s.box + 512, map, s.full, {0, 0, 0, 0});
                         }),
                         "load_box: address 512 is not a multiple of 1024"));
    EXPECT_TRUE(contains(use([&](Shared& s) {
                             ptx::fence_mbarrier_init();
                             ptx::load_box(s.box + 9216, map, s.full, {0, 0, 0, 0});
                         }),
                         "load_box: 8192 bytes at 9216"));
    EXPECT_TRUE(contains(use([&](Shared& s) {
                             ptx::fence_mbarrier_init();
                             ptx::load_box(s.box, map, s.full, {0, 0, 0, 0});
                         }),
                         "1 loads are under way at the end"));
    EXPECT_TRUE(contains(use([&](Shared& s) {
                             ptx::store_box(map, s.box, {0, 0, 0, 0});
                             ptx::commit_stores();
                         }),
                         "thread 0 ended before its stores had read"));
    EXPECT_TRUE(contains(use([&](Shared& s) {
                             const ptx::TensorMap unmade{};
                             ptx::store_box(unmade, s.box, {0, 0, 0, 0});
                         }),
                         "was not made"));
}

TEST(TensorCopyErrors, ABoxOutsideReadsTheTensorsAddress) {
    Tensor tensor;
    ptx::TensorMap map = tensor.map({64, 64, 1, 1});
    const auto load = [&](ptx::Coordinates at) {
        return error_of(kConfig, [&](char* memory) {
            if (threadIdx.x != 0) return;
            Shared& shared = *reinterpret_cast<Shared*>(memory);
            ptx::mbarrier_init(shared.full, 1);
            ptx::fence_mbarrier_init();
            ptx::mbarrier_arrive_expect_bytes(shared.full, 64 * 128);
            ptx::load_box(shared.box, map, shared.full, at);
            ptx::mbarrier_wait(shared.full, 0);
        });
    };
    EXPECT_EQ("", load({128, 0, 0, 0}));
    map = make_tensor_map({reinterpret_cast<void*>(4096), 2, {64, 64, 1, 1}, {2, 208, 208, 208}, {64, 64, 1, 1}});
    EXPECT_TRUE(contains(load({64, 0, 0, 0}), "whose address cannot be read"));
    EXPECT_TRUE(contains(load({0, -64, 0, 0}), "whose address cannot be read"));
}

// A warp writes a box, which the copy engine stores; then it writes into it again.
std::string store_from_registers(Timing timing, bool fences, bool waits, std::vector<uint16_t>& data) {
    Tensor tensor;
    const ptx::TensorMap map = tensor.map({64, 8, 1, 1});
    Config config = kConfig;
    config.threads = 32;
    config.timing = timing;
    std::string error = error_of(config, [&](char* memory) {
        const uint32_t address = ptx::shared_address(memory);
        for (uint32_t half = 0; half < 2; ++half)
            ptx::stmatrix_x4(address + half * 512 + threadIdx.x * 16, {0x10001, 0x10001, 0x10001, 0x10001});
        if (fences) ptx::fence_async_shared();
        __syncwarp();
        if (threadIdx.x == 0) {
            ptx::store_box(map, memory, {0, 0, 0, 0});
            ptx::commit_stores();
            if (waits) ptx::wait_stores_read<0>();
        }
        __syncwarp();
        for (uint32_t half = 0; half < 2; ++half)
            ptx::stmatrix_x4(address + half * 512 + threadIdx.x * 16, {0x20002, 0x20002, 0x20002, 0x20002});
        ptx::fence_async_shared();
        __syncwarp();
        if (threadIdx.x == 0) ptx::wait_stores();
    });
    data = tensor.data;
    return error;
}

TEST(TensorCopy, StoresReadSharedMemoryUntilTheyAreWaitedFor) {
    std::vector<uint16_t> data;
    for (const Timing timing : {Timing::kEarly, Timing::kLate, Timing::kRandom}) {
        EXPECT_EQ("", store_from_registers(timing, true, true, data));
        EXPECT_EQ(std::vector<uint16_t>(64, 1), std::vector<uint16_t>(data.begin(), data.begin() + 64));
    }
    EXPECT_EQ("", store_from_registers(Timing::kLate, true, false, data));
    EXPECT_EQ(2, data[0]) << "the second write came before the store read the first";
}

TEST(TensorCopyErrors, OrdinaryWritesNeedAFenceBeforeTheCopyEngineReads) {
    std::vector<uint16_t> data;
    for (const Timing timing : {Timing::kEarly, Timing::kLate, Timing::kRandom}) {
        const std::string error = store_from_registers(timing, false, true, data);
        EXPECT_TRUE(contains(error, "has not called fence_async_shared() since")) << error;
    }
}

} // namespace
} // namespace lattn::emulator
