// The whole numeric suite on every instruction set that this machine has and the library does not pick by itself.
#include <gtest/gtest.h>

#include <cstdlib>
#include <string>

#include "child_process.h"
#include "lightning_attn.h"

namespace lattn::test {
namespace {

std::string isa_in_use() {
    const std::string info = lattn_build_info();
    const std::size_t begin = info.find("cpu=");
    if (begin == std::string::npos) return "";
    return info.substr(begin + 4, info.find(';', begin) - begin - 4);
}

TEST(InstructionSet, IsReported) {
    const std::string isa = isa_in_use();
    EXPECT_TRUE(isa == "baseline" || isa == "avx2" || isa == "avx512") << lattn_build_info();
    std::cout << "instruction set in use: " << isa << std::endl;
}

class NarrowerInstructionSet : public ::testing::TestWithParam<const char*> {};

TEST_P(NarrowerInstructionSet, PassesTheNumericTests) {
    const std::string isa = GetParam(), in_use = isa_in_use();
    if (in_use == isa || in_use == "baseline")
        GTEST_SKIP() << "this machine runs " << in_use << ", where the other tests are " << isa << "'s or it has none";
    std::string log;
    const int code = run_again("InstructionSet.IsReported:*Forward*:*Backward*:*Decode*:*Conversion*:*Determinism*",
                               {{"LATTN_CPU_ISA", isa}}, log);
    EXPECT_EQ(0, code) << log;
    EXPECT_NE(std::string::npos, log.find("instruction set in use: " + isa)) << log;
}

INSTANTIATE_TEST_SUITE_P(Sets, NarrowerInstructionSet, ::testing::Values("baseline", "avx2"),
                         [](const auto& isa) { return std::string(isa.param); });

TEST(InstructionSet, AnUnknownNameChangesNothing) {
    if (std::getenv("LATTN_CPU_ISA") != nullptr) GTEST_SKIP() << "LATTN_CPU_ISA already limits this run";
    std::string log;
    ASSERT_EQ(0, run_again("InstructionSet.IsReported", {{"LATTN_CPU_ISA", "quantum"}}, log)) << log;
    EXPECT_NE(std::string::npos, log.find("instruction set in use: " + isa_in_use())) << log;
}

} // namespace
} // namespace lattn::test
