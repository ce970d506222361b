// The dispatch table: every kernel of the library by its extern "C" name. It answers "is it supported" and "launch it".
#pragma once

#include "common/status.h"

namespace lattn::cuda {

struct Module {
    const char* name; // stem of the .cu file
    const unsigned char* image;
    const unsigned long long* bytes;
};

enum class Operation {
    kScan,
    kScanTf32,
    kSegmentedScan,
    kSegmentSums,
    kCombineSegments,
    kPackedScan,
    kPackedSums,
    kCombinePacked,
    kSequenceTable,
    kDecayGrad,
    kDecayGradReduce,
    kGroupSum,
    kClearPadding,
    kDecode,
    kDecodeDraft,
    kGatedNorm,
    kGatedNormAny,
    kGatedNormBackward,
    kGatedNormBackwardAny,
    kGatedNormSum,
    kActivate
};

struct Kernel {
    Operation operation;
    lattn_dtype dtype;       // of q, k, v; 0: any
    lattn_dtype state_dtype; // of decode, otherwise 0
    int row_dim;             // of the scans and of decode: largest row dimension; otherwise 0
    const char* name;
    int module; // index into modules()
    int threads;
    int shared_bytes;
};

constexpr int kModuleCount = 15;
constexpr int kKernelCount = 113;

const Module& module_at(int index);
const Kernel& kernel_at(int index);

// The smallest kernel that serves the request; the message says what is supported when there is none.
Status find_kernel(Operation operation, lattn_dtype dtype, lattn_dtype state_dtype, int64_t row_dim, int& index);

// kScanTf32 for fp32 where tf32 is allowed, else kScan.
Status find_scan(lattn_dtype dtype, bool allow_tf32, int64_t row_dim, int& index);

// The sizes that the CUDA kernels take.
Status check_head_dim(const char* name, int64_t value);

} // namespace lattn::cuda
