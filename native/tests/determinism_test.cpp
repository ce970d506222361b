// Bitwise equality: of a call with itself, alone and in a batch, and on any number of threads.
#include <gtest/gtest.h>

#include <cstdlib>
#include <iostream>
#include <thread>

#include "child_process.h"
#include "problem.h"

namespace lattn::test {
namespace {

Case batch_case(lattn_dtype dtype) {
    Case c;
    c.dtype = dtype;
    c.sizes = {3, 2, 4, 150, 72, 200, 64, true};
    c.rates = {0.01, 0.3};
    return c;
}

class Determinism : public ::testing::TestWithParam<lattn_dtype> {};

TEST_P(Determinism, TheSameCallTwice) {
    Problem first(batch_case(GetParam())), second(batch_case(GetParam()));
    for (Problem* problem : {&first, &second}) {
        problem->run_forward();
        problem->run_backward();
    }
    for (std::size_t i = 0; i < first.results().size(); ++i)
        EXPECT_EQ(first.results()[i]->bytes(), second.results()[i]->bytes()) << "result " << i;
}

TEST_P(Determinism, AloneAndInABatch) {
    Problem together(batch_case(GetParam())), alone(batch_case(GetParam()));
    together.run_forward();
    together.run_backward();
    for (int64_t sequence = 0; sequence < 3; ++sequence) {
        const lattn_forward_params forward = sequence_of(alone.forward_params(), sequence);
        const lattn_backward_params backward = sequence_of(alone.backward_params(), sequence);
        ASSERT_EQ(LATTN_OK, lattn_forward(&forward)) << lattn_last_error();
        ASSERT_EQ(LATTN_OK, lattn_backward(&backward)) << lattn_last_error();
    }
    // The rate's gradient is a sum over the batch.
    for (std::size_t i = 0; i + 1 < together.results().size(); ++i)
        EXPECT_EQ(together.results()[i]->bytes(), alone.results()[i]->bytes()) << "result " << i;
}

// A token's output does not depend on how many follow it.
TEST_P(Determinism, APrefixIsTheSame) {
    Case c = batch_case(GetParam());
    c.sizes.batch = 1;
    c.sizes.block_states = false;
    Problem whole(c), prefix(c);
    whole.run_forward();
    for (int64_t tokens : {1, 30, 64, 100, 149}) {
        prefix.output.poison();
        lattn_forward_params params = prefix.forward_params();
        params.problem.tokens = tokens;
        ASSERT_EQ(LATTN_OK, lattn_forward(&params)) << lattn_last_error();
        const std::vector<double> expected = whole.output.values(), actual = prefix.output.values();
        for (std::size_t i = 0; i < expected.size(); ++i) {
            const auto token = static_cast<int64_t>(i) / c.sizes.head_dim_v % c.sizes.tokens;
            if (token >= tokens) continue;
            ASSERT_EQ(expected[i], actual[i]) << "token " << token << " of " << tokens;
        }
    }
}

TEST_P(Determinism, ManyCallersAtOnce) {
    const Case c = batch_case(GetParam());
    Problem expected(c);
    expected.run_forward();
    expected.run_backward();
    std::vector<Problem> problems(4, expected);
    for (Problem& problem : problems)
        for (Tensor* result : problem.results()) result->poison();
    std::vector<std::thread> threads;
    for (Problem& problem : problems)
        threads.emplace_back([&problem] {
            problem.run_forward();
            problem.run_backward();
        });
    for (std::thread& thread : threads) thread.join();
    for (Problem& problem : problems)
        for (std::size_t i = 0; i < expected.results().size(); ++i)
            EXPECT_EQ(expected.results()[i]->bytes(), problem.results()[i]->bytes()) << "result " << i;
}

uint64_t digest(uint64_t hash, const std::vector<unsigned char>& bytes) {
    for (unsigned char byte : bytes) hash = (hash ^ byte) * 1099511628211u; // FNV-1a
    return hash;
}

// Prints a digest of all results; run by the test below in processes with other numbers of threads. One head, so that
// threads have to share it.
TEST_P(Determinism, Digest) {
    Case c = batch_case(GetParam());
    c.sizes.tokens = 400;
    c.sizes.batch = c.sizes.heads_qk = c.sizes.heads_v = 1;
    Problem problem(c);
    problem.run_forward();
    problem.run_backward();
    uint64_t hash = 14695981039346656037u;
    for (Tensor* result : problem.results()) hash = digest(hash, result->bytes());
    std::cout << "digest " << hash << std::endl;
}

INSTANTIATE_TEST_SUITE_P(Types, Determinism,
                         ::testing::Values(LATTN_FLOAT16, LATTN_BFLOAT16, LATTN_FLOAT32, LATTN_FLOAT64),
                         [](const auto& type) { return name_of(type.param); });

std::vector<std::string> digests_in(const std::string& log) {
    std::vector<std::string> digests;
    for (std::size_t at = log.find("digest "); at != std::string::npos; at = log.find("digest ", at + 1))
        digests.push_back(log.substr(at, log.find('\n', at) - at));
    return digests;
}

TEST(Threads, DoNotChangeTheResults) {
    std::vector<std::string> expected;
    for (const char* threads : {"1", "2", "3", "8"}) {
        std::string log;
        ASSERT_EQ(0, run_again("*Determinism.Digest*", {{"OMP_NUM_THREADS", threads}}, log)) << log;
        const std::vector<std::string> digests = digests_in(log);
        ASSERT_EQ(4u, digests.size()) << log;
        if (expected.empty()) expected = digests;
        EXPECT_EQ(expected, digests) << threads << " threads";
    }
}

} // namespace
} // namespace lattn::test
