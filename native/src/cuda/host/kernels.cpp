#include "cuda/host/kernels.h"

#include "common/dtype.h"
#include "cuda/activation/activation_params.h"
#include "cuda/decay_grad/decay_grad_config.h"
#include "cuda/decode/decode_params.h"
#include "cuda/gated_norm/gated_norm_params.h"
#include "cuda/group_sum/group_sum_params.h"
#include "cuda/packed/clear_padding_params.h"
#include "cuda/scan/scan_config.h"
#include "cuda/scan/scan_params.h"
#include "cuda/segmented_scan/segmented_scan_config.h"
#include "cuda/segmented_scan/sequence_table_params.h"

#define LATTN_DECLARE_FATBIN(stem)                    \
    extern const unsigned char lattn_fatbin_##stem[]; \
    extern const unsigned long long lattn_fatbin_##stem##_bytes;

extern "C" {
LATTN_DECLARE_FATBIN(scan_bf16)
LATTN_DECLARE_FATBIN(scan_fp16)
LATTN_DECLARE_FATBIN(scan_fp32)
LATTN_DECLARE_FATBIN(scan_tf32)
LATTN_DECLARE_FATBIN(segmented_scan_bf16_sm90a)
LATTN_DECLARE_FATBIN(segmented_scan_fp16_sm90a)
LATTN_DECLARE_FATBIN(packed_scan_bf16_sm90a)
LATTN_DECLARE_FATBIN(packed_scan_fp16_sm90a)
LATTN_DECLARE_FATBIN(sequence_table_sm90a)
LATTN_DECLARE_FATBIN(decay_grad)
LATTN_DECLARE_FATBIN(group_sum)
LATTN_DECLARE_FATBIN(clear_padding)
LATTN_DECLARE_FATBIN(decode)
LATTN_DECLARE_FATBIN(gated_norm)
LATTN_DECLARE_FATBIN(activation)
}

namespace lattn::cuda {
namespace {

enum ModuleIndex {
    kScanBf16,
    kScanFp16,
    kScanFp32,
    kScanTf32,
    kSegmentedScanBf16,
    kSegmentedScanFp16,
    kPackedScanBf16,
    kPackedScanFp16,
    kSequenceTableModule,
    kDecayGradModule,
    kGroupSumModule,
    kClearPaddingModule,
    kDecodeModule,
    kGatedNormModule,
    kActivationModule
};

#define LATTN_MODULE(stem) \
    { #stem, lattn_fatbin_##stem, &lattn_fatbin_##stem##_bytes }

const Module modules[kModuleCount] = {LATTN_MODULE(scan_bf16),
                                      LATTN_MODULE(scan_fp16),
                                      LATTN_MODULE(scan_fp32),
                                      LATTN_MODULE(scan_tf32),
                                      LATTN_MODULE(segmented_scan_bf16_sm90a),
                                      LATTN_MODULE(segmented_scan_fp16_sm90a),
                                      LATTN_MODULE(packed_scan_bf16_sm90a),
                                      LATTN_MODULE(packed_scan_fp16_sm90a),
                                      LATTN_MODULE(sequence_table_sm90a),
                                      LATTN_MODULE(decay_grad),
                                      LATTN_MODULE(group_sum),
                                      LATTN_MODULE(clear_padding),
                                      LATTN_MODULE(decode),
                                      LATTN_MODULE(gated_norm),
                                      LATTN_MODULE(activation)};

// element_bytes, score_bytes: as the kernels' Operand<T> has them.
template <int kElementBytes, int kScoreBytes, int kRowDim>
constexpr Kernel scan(lattn_dtype dtype, const char* name, ModuleIndex module, Operation operation = Operation::kScan) {
    using Config = ScanConfig<kElementBytes, kScoreBytes, kRowDim>;
    return {operation, dtype, 0, kRowDim, name, module, Config::kThreads, static_cast<int>(Config::kSharedBytes)};
}

template <int kRowDim>
constexpr Kernel scan_tf32(const char* name) {
    return scan<4, 4, kRowDim>(LATTN_FLOAT32, name, kScanTf32, Operation::kScanTf32);
}

template <int kRowDim>
constexpr Kernel segmented_scan(lattn_dtype dtype, const char* name, ModuleIndex module,
                                Operation operation = Operation::kSegmentedScan) {
    using Config = SegmentedScanConfig<kRowDim>;
    return {operation, dtype, 0, kRowDim, name, module, Config::kScanThreads, static_cast<int>(Config::kSharedBytes)};
}

template <int kRowDim>
constexpr Kernel combine_segments(lattn_dtype dtype, const char* name, ModuleIndex module,
                                  Operation operation = Operation::kCombineSegments) {
    return {operation, dtype, 0, kRowDim, name, module, SegmentedScanConfig<kRowDim>::kCombineThreads, 0};
}

template <int kRowDim>
constexpr Kernel segment_sums(lattn_dtype dtype, const char* name, ModuleIndex module) {
    using Config = SegmentSumConfig<kRowDim>;
    return {Operation::kSegmentSums,
            dtype,
            0,
            kRowDim,
            name,
            module,
            Config::kThreads,
            static_cast<int>(Config::kSharedBytes)};
}

constexpr Kernel packed_sums(lattn_dtype dtype, const char* name, ModuleIndex module) {
    using Config = SegmentSumConfig<kSumRows>;
    return {Operation::kPackedSums,
            dtype,
            0,
            0,
            name,
            module,
            Config::kPackedThreads,
            static_cast<int>(Config::kSharedBytes)};
}

template <int kElementBytes>
constexpr Kernel decay_grad(lattn_dtype dtype, const char* name) {
    using Config = DecayGradConfig<kElementBytes>;
    return {Operation::kDecayGrad,
            dtype,
            0,
            0,
            name,
            kDecayGradModule,
            Config::kThreads,
            static_cast<int>(Config::kSharedBytes)};
}

constexpr Kernel group_sum(lattn_dtype dtype, const char* name) {
    return {Operation::kGroupSum, dtype, 0, 0, name, kGroupSumModule, kGroupSumThreads, 0};
}

template <int kRowDim>
constexpr Kernel decode(lattn_dtype dtype, lattn_dtype state_dtype, const char* name,
                        Operation operation = Operation::kDecode) {
    return {operation, dtype, state_dtype, kRowDim, name, kDecodeModule, 32 * decode_warps(kRowDim), 0};
}

constexpr Kernel gated_norm(lattn_dtype dtype, const char* name, Operation operation, int threads) {
    return {operation, dtype, 0, 0, name, kGatedNormModule, threads, 0};
}

constexpr Kernel activate(lattn_dtype dtype, const char* name) {
    return {Operation::kActivate, dtype, 0, 0, name, kActivationModule, kActivationThreads, 0};
}

#define LATTN_GATED_NORM(dtype, type)                                                                 \
    gated_norm(dtype, "lattn_gated_norm_" type, Operation::kGatedNorm, kGatedNormThreads),            \
        gated_norm(dtype, "lattn_gated_norm_any_" type, Operation::kGatedNormAny, kGatedNormThreads), \
        gated_norm(dtype, "lattn_gated_norm_backward_" type, Operation::kGatedNormBackward,           \
                   kGatedNormBackwardThreads),                                                        \
        gated_norm(dtype, "lattn_gated_norm_backward_any_" type, Operation::kGatedNormBackwardAny,    \
                   kGatedNormBackwardThreads),                                                        \
        gated_norm(dtype, "lattn_gated_norm_sum_" type, Operation::kGatedNormSum, kGatedNormSumThreads)

#define LATTN_DECODE(dtype, state_dtype, types)                                                        \
    decode<128>(dtype, state_dtype, "lattn_decode_" types "_d128"),                                    \
        decode<256>(dtype, state_dtype, "lattn_decode_" types "_d256"),                                \
        decode<128>(dtype, state_dtype, "lattn_decode_draft_" types "_d128", Operation::kDecodeDraft), \
        decode<256>(dtype, state_dtype, "lattn_decode_draft_" types "_d256", Operation::kDecodeDraft)

constexpr Kernel kernels[] = {
    scan<2, 2, 64>(LATTN_BFLOAT16, "lattn_scan_bf16_d64", kScanBf16),
    scan<2, 2, 128>(LATTN_BFLOAT16, "lattn_scan_bf16_d128", kScanBf16),
    scan<2, 2, 192>(LATTN_BFLOAT16, "lattn_scan_bf16_d192", kScanBf16),
    scan<2, 2, 256>(LATTN_BFLOAT16, "lattn_scan_bf16_d256", kScanBf16),
    scan<2, 4, 64>(LATTN_FLOAT16, "lattn_scan_fp16_d64", kScanFp16),
    scan<2, 4, 128>(LATTN_FLOAT16, "lattn_scan_fp16_d128", kScanFp16),
    scan<2, 4, 192>(LATTN_FLOAT16, "lattn_scan_fp16_d192", kScanFp16),
    scan<2, 4, 256>(LATTN_FLOAT16, "lattn_scan_fp16_d256", kScanFp16),
    scan<4, 4, 64>(LATTN_FLOAT32, "lattn_scan_fp32_d64", kScanFp32),
    scan<4, 4, 128>(LATTN_FLOAT32, "lattn_scan_fp32_d128", kScanFp32),
    scan<4, 4, 192>(LATTN_FLOAT32, "lattn_scan_fp32_d192", kScanFp32),
    scan<4, 4, 256>(LATTN_FLOAT32, "lattn_scan_fp32_d256", kScanFp32),
    scan_tf32<64>("lattn_scan_tf32_d64"),
    scan_tf32<128>("lattn_scan_tf32_d128"),
    scan_tf32<192>("lattn_scan_tf32_d192"),
    scan_tf32<256>("lattn_scan_tf32_d256"),
    segmented_scan<64>(LATTN_BFLOAT16, "lattn_segmented_scan_bf16_d64", kSegmentedScanBf16),
    segmented_scan<128>(LATTN_BFLOAT16, "lattn_segmented_scan_bf16_d128", kSegmentedScanBf16),
    segmented_scan<192>(LATTN_BFLOAT16, "lattn_segmented_scan_bf16_d192", kSegmentedScanBf16),
    segmented_scan<256>(LATTN_BFLOAT16, "lattn_segmented_scan_bf16_d256", kSegmentedScanBf16),
    segmented_scan<64>(LATTN_FLOAT16, "lattn_segmented_scan_fp16_d64", kSegmentedScanFp16),
    segmented_scan<128>(LATTN_FLOAT16, "lattn_segmented_scan_fp16_d128", kSegmentedScanFp16),
    segmented_scan<192>(LATTN_FLOAT16, "lattn_segmented_scan_fp16_d192", kSegmentedScanFp16),
    segmented_scan<256>(LATTN_FLOAT16, "lattn_segmented_scan_fp16_d256", kSegmentedScanFp16),
    segment_sums<64>(LATTN_BFLOAT16, "lattn_segment_sums_bf16_d64", kSegmentedScanBf16),
    segment_sums<64>(LATTN_FLOAT16, "lattn_segment_sums_fp16_d64", kSegmentedScanFp16),
    segment_sums<128>(LATTN_BFLOAT16, "lattn_segment_sums_bf16_d128", kSegmentedScanBf16),
    segment_sums<128>(LATTN_FLOAT16, "lattn_segment_sums_fp16_d128", kSegmentedScanFp16),
    combine_segments<64>(LATTN_BFLOAT16, "lattn_combine_segments_bf16_d64", kSegmentedScanBf16),
    combine_segments<128>(LATTN_BFLOAT16, "lattn_combine_segments_bf16_d128", kSegmentedScanBf16),
    combine_segments<192>(LATTN_BFLOAT16, "lattn_combine_segments_bf16_d192", kSegmentedScanBf16),
    combine_segments<256>(LATTN_BFLOAT16, "lattn_combine_segments_bf16_d256", kSegmentedScanBf16),
    combine_segments<64>(LATTN_FLOAT16, "lattn_combine_segments_fp16_d64", kSegmentedScanFp16),
    combine_segments<128>(LATTN_FLOAT16, "lattn_combine_segments_fp16_d128", kSegmentedScanFp16),
    combine_segments<192>(LATTN_FLOAT16, "lattn_combine_segments_fp16_d192", kSegmentedScanFp16),
    combine_segments<256>(LATTN_FLOAT16, "lattn_combine_segments_fp16_d256", kSegmentedScanFp16),
    segmented_scan<64>(LATTN_BFLOAT16, "lattn_packed_scan_bf16_d64", kPackedScanBf16, Operation::kPackedScan),
    segmented_scan<128>(LATTN_BFLOAT16, "lattn_packed_scan_bf16_d128", kPackedScanBf16, Operation::kPackedScan),
    segmented_scan<192>(LATTN_BFLOAT16, "lattn_packed_scan_bf16_d192", kPackedScanBf16, Operation::kPackedScan),
    segmented_scan<256>(LATTN_BFLOAT16, "lattn_packed_scan_bf16_d256", kPackedScanBf16, Operation::kPackedScan),
    segmented_scan<192>(LATTN_FLOAT16, "lattn_packed_scan_fp16_d192", kPackedScanFp16, Operation::kPackedScan),
    segmented_scan<256>(LATTN_FLOAT16, "lattn_packed_scan_fp16_d256", kPackedScanFp16, Operation::kPackedScan),
    combine_segments<64>(LATTN_BFLOAT16, "lattn_combine_packed_bf16_d64", kPackedScanBf16, Operation::kCombinePacked),
    combine_segments<128>(LATTN_BFLOAT16, "lattn_combine_packed_bf16_d128", kPackedScanBf16, Operation::kCombinePacked),
    combine_segments<192>(LATTN_BFLOAT16, "lattn_combine_packed_bf16_d192", kPackedScanBf16, Operation::kCombinePacked),
    combine_segments<256>(LATTN_BFLOAT16, "lattn_combine_packed_bf16_d256", kPackedScanBf16, Operation::kCombinePacked),
    combine_segments<192>(LATTN_FLOAT16, "lattn_combine_packed_fp16_d192", kPackedScanFp16, Operation::kCombinePacked),
    combine_segments<256>(LATTN_FLOAT16, "lattn_combine_packed_fp16_d256", kPackedScanFp16, Operation::kCombinePacked),
    packed_sums(LATTN_BFLOAT16, "lattn_packed_sums_bf16", kPackedScanBf16),
    packed_sums(LATTN_FLOAT16, "lattn_packed_sums_fp16", kPackedScanFp16),
    {Operation::kSequenceTable, 0, 0, 0, "lattn_sequence_table", kSequenceTableModule, kSequenceTableThreads, 0},
    decay_grad<2>(LATTN_BFLOAT16, "lattn_decay_grad_bf16"),
    decay_grad<2>(LATTN_FLOAT16, "lattn_decay_grad_fp16"),
    decay_grad<4>(LATTN_FLOAT32, "lattn_decay_grad_fp32"),
    {Operation::kDecayGradReduce, 0, 0, 0, "lattn_decay_grad_reduce", kDecayGradModule, 32, 0},
    group_sum(LATTN_BFLOAT16, "lattn_group_sum_bf16"),
    group_sum(LATTN_FLOAT16, "lattn_group_sum_fp16"),
    group_sum(LATTN_FLOAT32, "lattn_group_sum_fp32"),
    {Operation::kClearPadding, 0, 0, 0, "lattn_clear_padding", kClearPaddingModule, kClearPaddingThreads, 0},
    LATTN_DECODE(LATTN_BFLOAT16, LATTN_FLOAT32, "bf16_state_fp32"),
    LATTN_DECODE(LATTN_BFLOAT16, LATTN_BFLOAT16, "bf16_state_bf16"),
    LATTN_DECODE(LATTN_BFLOAT16, LATTN_FLOAT16, "bf16_state_fp16"),
    LATTN_DECODE(LATTN_FLOAT16, LATTN_FLOAT32, "fp16_state_fp32"),
    LATTN_DECODE(LATTN_FLOAT16, LATTN_BFLOAT16, "fp16_state_bf16"),
    LATTN_DECODE(LATTN_FLOAT16, LATTN_FLOAT16, "fp16_state_fp16"),
    LATTN_DECODE(LATTN_FLOAT32, LATTN_FLOAT32, "fp32_state_fp32"),
    LATTN_DECODE(LATTN_FLOAT32, LATTN_BFLOAT16, "fp32_state_bf16"),
    LATTN_DECODE(LATTN_FLOAT32, LATTN_FLOAT16, "fp32_state_fp16"),
    LATTN_GATED_NORM(LATTN_BFLOAT16, "bf16"),
    LATTN_GATED_NORM(LATTN_FLOAT16, "fp16"),
    LATTN_GATED_NORM(LATTN_FLOAT32, "fp32"),
    activate(LATTN_BFLOAT16, "lattn_activate_bf16"),
    activate(LATTN_FLOAT16, "lattn_activate_fp16"),
    activate(LATTN_FLOAT32, "lattn_activate_fp32"),
};
static_assert(sizeof(kernels) / sizeof(kernels[0]) == kKernelCount);

} // namespace

const Module& module_at(int index) {
    return modules[index];
}

const Kernel& kernel_at(int index) {
    return kernels[index];
}

Status find_kernel(Operation operation, lattn_dtype dtype, lattn_dtype state_dtype, int64_t row_dim, int& index) {
    for (index = 0; index < kKernelCount; ++index) {
        const Kernel& kernel = kernels[index];
        if (kernel.operation == operation && (kernel.dtype == dtype || kernel.dtype == 0) &&
            kernel.state_dtype == state_dtype && (kernel.row_dim == 0 || row_dim <= kernel.row_dim))
            return ok();
    }
    if (state_dtype != 0)
        return error(
            LATTN_NOT_SUPPORTED,
            "CUDA has no decode kernel for dtype = %s with state_dtype = %s; float16, bfloat16 and float32 are "
            "supported for both",
            dtype_name(dtype), dtype_name(state_dtype));
    return error(LATTN_NOT_SUPPORTED, "dtype = %s is not supported on CUDA; float16, bfloat16 and float32 are",
                 dtype_name(dtype));
}

Status find_scan(lattn_dtype dtype, bool allow_tf32, int64_t row_dim, int& index) {
    const bool tf32 = allow_tf32 && dtype == LATTN_FLOAT32;
    return find_kernel(tf32 ? Operation::kScanTf32 : Operation::kScan, dtype, 0, row_dim, index);
}

Status check_head_dim(const char* name, int64_t value) {
    if (value >= 16 && value <= kMaxHeadDim && value % 8 == 0) return ok();
    return error(LATTN_NOT_SUPPORTED, "%s = %lld is not supported on CUDA: it must be a multiple of 8 from 16 to %d",
                 name, static_cast<long long>(value), kMaxHeadDim);
}

} // namespace lattn::cuda
