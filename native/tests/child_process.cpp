#include "child_process.h"

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <random>
#include <sstream>

namespace lattn::test {
namespace {

std::string executable;

void set_variable(const std::string& name, const std::string& value) {
#if defined(_WIN32)
    _putenv_s(name.c_str(), value.c_str());
#else
    setenv(name.c_str(), value.c_str(), 1);
#endif
}

void unset_variable(const std::string& name) {
#if defined(_WIN32)
    _putenv_s(name.c_str(), "");
#else
    unsetenv(name.c_str());
#endif
}

} // namespace

void set_executable(const char* path) {
    executable = std::filesystem::absolute(path).string();
}

int run_again(const std::string& filter, const std::vector<std::pair<std::string, std::string>>& environment,
              std::string& log) {
    const std::filesystem::path path =
        std::filesystem::temp_directory_path() / ("lattn_tests_" + std::to_string(std::random_device{}()) + ".log");
    for (const auto& [name, value] : environment) set_variable(name, value);
    // A result file of the parent is not the child's.
    unset_variable("GTEST_OUTPUT");
    const std::string command =
        "\"" + executable + "\" --gtest_color=no --gtest_filter=" + filter + " > \"" + path.string() + "\" 2>&1";
#if defined(_WIN32)
    const int code = std::system(("\"" + command + "\"").c_str());
#else
    const int code = std::system(command.c_str());
#endif
    for (const auto& [name, value] : environment) unset_variable(name);
    std::ostringstream text;
    text << std::ifstream(path).rdbuf();
    log += text.str();
    std::error_code ignored;
    std::filesystem::remove(path, ignored);
    return code;
}

} // namespace lattn::test
