#include "cpu/runner.h"

#include <algorithm>

#include "common/dtype.h"
#include "common/problem.h"
#include "cpu/kernels.h"
#include "cpu/parallel.h"

namespace lattn::cpu {
namespace {

// A slice repeats the scores, so it should not be much narrower than a chunk is long; whole vectors in every case.
constexpr int64_t kNarrowestSlice = 32;
constexpr int64_t kFixedSlice = 128;

std::vector<Slice> slices_of(int64_t columns, int64_t width) {
    std::vector<Slice> slices;
    for (int64_t begin = 0; begin < columns; begin += width)
        slices.push_back({begin, std::min(width, columns - begin)});
    return slices;
}

double multiply_adds(const Scan& scan) {
    const auto n = static_cast<double>(scan.tokens * scan.members);
    const auto k = static_cast<double>(scan.rows);
    const auto l = static_cast<double>(scan.columns);
    return n * (2 * k * l + 0.5 * static_cast<double>(kChunk) * (k + l)) + k * l;
}

} // namespace

std::vector<Slice> slices_for(int64_t columns, int64_t scans) {
    const int64_t wanted = ceil_div(threads_for(INT32_MAX, 1e300), std::max<int64_t>(scans, 1));
    const int64_t width = ceil_div(ceil_div(columns, wanted), kNarrowestSlice) * kNarrowestSlice;
    return slices_of(columns, width);
}

std::vector<Slice> fixed_slices(int64_t columns) {
    return slices_of(columns, kFixedSlice);
}

Status run(const std::vector<Scan>& scans, lattn_dtype dtype) {
    const std::size_t element_bytes = dtype_bytes(state_dtype_of(dtype));
    std::size_t scratch_bytes = 0;
    double work = 0;
    for (const Scan& scan : scans) {
        const auto elements = static_cast<std::size_t>(layout_of(scan, element_bytes).elements);
        scratch_bytes = std::max(scratch_bytes, elements * element_bytes);
        work += multiply_adds(scan);
    }
    const auto tasks = static_cast<int64_t>(scans.size());
    const int threads = threads_for(tasks, work);
    const Scratch scratch(scratch_bytes, threads);
    if (!scratch) return out_of_memory();
    const auto kernel = kernels_for(dtype).scan;
    parallel_for(tasks, threads, [&](int64_t index, int thread) {
        kernel(scans[static_cast<std::size_t>(index)], scratch.of(thread));
    });
    return ok();
}

Status out_of_memory() {
    return error(LATTN_OUT_OF_MEMORY, "not enough host memory for the scratch of the CPU kernels");
}

} // namespace lattn::cpu
