#include "cpu/parallel.h"

#include <algorithm>

#if defined(_OPENMP)
#include <omp.h>
#endif

namespace lattn::cpu {
namespace {

// Below this a thread costs more than it saves.
constexpr double kMultiplyAddsPerThread = 500e3;

int available_threads() {
#if defined(_OPENMP)
    return omp_in_parallel() ? 1 : omp_get_max_threads();
#else
    return 1;
#endif
}

} // namespace

int threads_for(int64_t tasks, double multiply_adds) {
    const int64_t useful = std::min(tasks, static_cast<int64_t>(std::min(multiply_adds / kMultiplyAddsPerThread, 1e6)));
    return static_cast<int>(std::clamp<int64_t>(useful, 1, available_threads()));
}

void parallel_for(int64_t tasks, int threads, const std::function<void(int64_t, int)>& task) {
    // A parallel region of one thread would make OpenMP dissolve the team that the next call needs.
    if (threads == 1) {
        for (int64_t index = 0; index < tasks; ++index) task(index, 0);
        return;
    }
#if defined(_OPENMP)
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads)
    for (int64_t index = 0; index < tasks; ++index) task(index, omp_get_thread_num());
#endif
}

} // namespace lattn::cpu
