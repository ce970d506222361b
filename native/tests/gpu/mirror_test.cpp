// The mirror itself, on host memory, with the faults that it must report.
#include "gpu/mirror.h"

#include <gtest/gtest-spi.h>

#include <stdexcept>

#include "gpu/device.h"

namespace lattn::test {
namespace {

class MirrorTest : public ::testing::Test {
protected:
    static Case small_case() {
        Case c;
        c.sizes = sizes_of(1, 2, 2, 70, 16, 24);
        return c;
    }
};

TEST_F(MirrorTest, BringsBackWhatItTook) {
    Problem problem(small_case());
    std::vector<std::vector<unsigned char>> before;
    for (Tensor* tensor : problem.inputs()) before.push_back(tensor->storage());
    for (Tensor* tensor : problem.results()) before.push_back(tensor->storage());
    Mirror mirror(host_device(), problem);
    EXPECT_NE(before[0], problem.q.storage()) << "the host's copy is not hidden";
    mirror.fetch();
    std::vector<std::vector<unsigned char>> after;
    for (Tensor* tensor : problem.inputs()) after.push_back(tensor->storage());
    for (Tensor* tensor : problem.results()) after.push_back(tensor->storage());
    EXPECT_EQ(before, after);
}

TEST_F(MirrorTest, AddressesKeepTheirOffsets) {
    Problem problem(small_case());
    Mirror mirror(host_device(), problem);
    const auto* q = static_cast<const char*>(mirror.at(problem.q.data()));
    EXPECT_NE(q, problem.q.data());
    EXPECT_EQ(q + 40, mirror.at(static_cast<const char*>(problem.q.data()) + 40));
    EXPECT_EQ(0u, reinterpret_cast<uintptr_t>(mirror.at(problem.q.storage().data())) % 256);
    EXPECT_EQ(nullptr, mirror.at(nullptr));
    const int elsewhere = 0;
    EXPECT_THROW(mirror.at(&elsewhere), std::out_of_range);
    EXPECT_THROW(mirror.at(problem.q.storage().data() + problem.q.storage().size()), std::out_of_range);
}

TEST_F(MirrorTest, ReportsAChangedInput) {
    Problem problem(small_case());
    Mirror mirror(host_device(), problem);
    static_cast<char*>(mirror.at(problem.k.data()))[3] ^= 1;
    EXPECT_NONFATAL_FAILURE(mirror.fetch(), "input 1 was changed");
}

TEST_F(MirrorTest, AWriteBesideAResultIsSeen) {
    Problem problem(small_case());
    Mirror mirror(host_device(), problem);
    static_cast<char*>(mirror.at(problem.output.data()))[-1] ^= 1;
    mirror.fetch();
    EXPECT_FALSE(problem.output.guards_intact());
}

TEST_F(MirrorTest, AResultThatIsNotWrittenFails) {
    Problem problem(small_case());
    Mirror mirror(host_device(), problem);
    mirror.fetch();
    EXPECT_NONFATAL_FAILURE(problem.expect_output(reference::forward(small_case().sizes, problem.reference_inputs())),
                            "not all finite");
}

TEST_F(MirrorTest, RefusedCallsFailTheTest) {
    // EXPECT_FATAL_FAILURE sees no local variables.
    static Problem problem(small_case());
    static Mirror mirror(host_device(), problem);
    static lattn_forward_params params = problem.forward_params();
    params.problem.block_size = 1;
    EXPECT_FATAL_FAILURE(mirror.forward(params), "block_size = 1");
}

} // namespace
} // namespace lattn::test
