// Launches of kernels on the emulator. A kernel is a type with `static void run(const Params&, char* shared)`.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <string>

#include "gpu_emulator/emulator.h"

namespace lattn::emulator {

template <typename Kernel, typename Params>
void launch(const Config& config, const Params& params) {
    run(config, [&](char* shared) { Kernel::run(params, shared); });
}

inline const char* name_of(Timing timing) {
    switch (timing) {
        case Timing::kEarly:
            return "early";
        case Timing::kLate:
            return "late";
        default:
            return "random";
    }
}

// Calls test(config) for every timing and the seeds 0 .. seeds - 1.
template <typename Test>
void for_each_schedule(Config config, int seeds, Test test) {
    for (const Timing timing : {Timing::kEarly, Timing::kLate, Timing::kRandom}) {
        for (int seed = 0; seed < seeds; ++seed) {
            SCOPED_TRACE(std::string("timing ") + name_of(timing) + ", seed " + std::to_string(seed));
            config.timing = timing;
            config.seed = static_cast<uint64_t>(seed);
            test(static_cast<const Config&>(config));
            if (::testing::Test::HasFatalFailure()) return;
        }
    }
}

// What a kernel's run complains of; empty if it does not.
inline std::string error_of(const Config& config, const std::function<void(char* shared)>& kernel) {
    try {
        run(config, kernel);
    } catch (const Error& error) {
        return error.what();
    }
    return "";
}

} // namespace lattn::emulator
