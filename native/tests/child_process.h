// This executable run again in another environment: the number of threads and the instruction set are chosen when the
// library is first used.
#pragma once

#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

namespace lattn::test {

void set_executable(const char* path);

// Runs the tests of `filter` in a child process with these environment variables set and returns its exit code. Its
// output is appended to `log`.
int run_again(const std::string& filter, const std::vector<std::pair<std::string, std::string>>& environment,
              std::string& log);

} // namespace lattn::test
