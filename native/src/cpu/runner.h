// Runs a list of independent scans on all threads.
#pragma once

#include <vector>

#include "common/status.h"
#include "cpu/scan.h"

namespace lattn::cpu {

// A range of columns of a scan.
struct Slice {
    int64_t begin;
    int64_t count;
};

// Cuts the columns of `scans` equal scans so that every thread has work. The cuts change no result.
std::vector<Slice> slices_for(int64_t columns, int64_t scans);

// Cuts columns by their number alone, for results that depend on the cuts.
std::vector<Slice> fixed_slices(int64_t columns);

// The longest scans should come first.
Status run(const std::vector<Scan>& scans, lattn_dtype dtype);

// The status of a call that ran out of host memory.
Status out_of_memory();

} // namespace lattn::cpu
