// The forward kernels for Hopper, on the emulator: their sources are the GPU's.
#include <gtest/gtest.h>

#include "gpu_emulator/kernel_host.h"
#include "problem.h"
#include "segmented_scan/segmented_scan_kernel.cuh"

namespace lattn::test {
namespace {

using cuda::BoxedTensor;
using cuda::kSegmentTokens;
using cuda::SegmentedScanConfig;
using cuda::SegmentedScanParams;
using emulator::Timing;

// Who works on the segments of a sequence; the results must be the same bits.
enum class Split {
    kWholeSequences,
    kSegments,
    kPairsOfSegments,
    kSegmentsCombineThemselves,
    kSegmentsInTallSums,
    kShortFirstJob
};

BoxedTensor boxed(Tensor& tensor, int64_t heads_v, int tokens = SegmentedScanConfig<64>::kChunk) {
    constexpr int64_t kElementBytes = 2;
    const auto size = [&](std::size_t axis) { return tensor.sizes()[axis]; };
    const auto stride = [&](std::size_t axis) { return tensor.stride(axis) * kElementBytes; };
    const auto repeats = [&](std::size_t axis) { return size(axis) <= 1 || stride(axis) == 0; };
    const int64_t row_bytes = size(3) * kElementBytes;
    BoxedTensor result{};
    result.map = emulator::make_tensor_map({tensor.data(),
                                            kElementBytes,
                                            {size(3), size(2), repeats(1) ? 1 : size(1), repeats(0) ? 1 : size(0)},
                                            {kElementBytes, size(2) <= 1 ? row_bytes : stride(2),
                                             repeats(1) ? row_bytes : stride(1), repeats(0) ? row_bytes : stride(0)},
                                            {64, tokens, 1, 1}});
    result.heads_per_head = static_cast<int32_t>(heads_v / size(1));
    result.repeats_heads = repeats(1);
    result.repeats_batch = repeats(0);
    return result;
}

cuda::StateView entry(const lattn_states_view& view, int64_t block) {
    return {static_cast<float*>(view.data) + block * view.stride_block,
            view.stride_b,
            view.stride_h,
            view.stride_block,
            view.stride_d,
            view.stride_e};
}

SegmentedScanParams scan_params(Problem& problem) {
    const Case& c = problem.description();
    const Sizes& s = c.sizes;
    SegmentedScanParams params{};
    params.a = boxed(problem.q, s.heads_v);
    params.b = boxed(problem.k, s.heads_v);
    params.c = boxed(problem.v, s.heads_v);
    params.out = boxed(problem.output, s.heads_v, SegmentedScanConfig<64>::kOutputRows);
    params.decay_rate = static_cast<const float*>(problem.rate.data());
    if (c.history) {
        const lattn_state_view history = problem.history.state_view();
        params.initial = {static_cast<float*>(history.data), history.stride_b, history.stride_h, history.stride_d,
                          history.stride_e};
    }
    const lattn_states_view states = problem.states.states_view();
    const cuda::StateView last = entry(states, s.state_count() - 1);
    params.final = {last.data, last.stride_b, last.stride_h, last.stride_row, last.stride_column};
    if (s.block_states) params.block_states = entry(states, 0);
    params.tokens = s.tokens;
    params.block_size = s.block_size;
    params.batch = static_cast<int32_t>(s.batch);
    params.heads = static_cast<int32_t>(s.heads_v);
    params.row_dim = static_cast<int32_t>(s.head_dim_qk);
    params.value_dim = static_cast<int32_t>(s.head_dim_v);
    params.value_slices = static_cast<int32_t>((s.head_dim_v + 63) / 64);
    params.segments = static_cast<int32_t>((s.tokens + kSegmentTokens - 1) / kSegmentTokens);
    params.end_chunk = static_cast<int32_t>((s.tokens + 63) / 64);
    params.short_chunk = params.end_chunk - 1;
    params.short_tokens = static_cast<int32_t>(s.tokens - params.short_chunk * 64);
    params.scale = static_cast<float>(c.scale);
    params.state_scale = params.inverse_state_scale = 1;
    return params;
}

template <typename T, int kSumRowDim>
void sum_segments(const SegmentedScanParams& params, emulator::Config config) {
    using Config = cuda::SegmentSumConfig<kSumRowDim>;
    config.blocks = params.batch * params.heads * params.value_slices * params.summed_segments * params.row_parts /
                    (kSumRowDim / cuda::kSumRows);
    config.threads = Config::kThreads;
    config.shared_bytes = Config::kSharedBytes;
    emulator::run(config, [&](char*) { cuda::SegmentedScan<T, kSumRowDim, true>::run(params); });
}

template <typename T, int kRowDim>
void launch(const SegmentedScanParams& given, Split split, emulator::Config config) {
    SegmentedScanParams params = given;
    using Config = SegmentedScanConfig<kRowDim>;
    const int sequences = params.batch * params.heads * params.value_slices;
    params.split = split != Split::kWholeSequences;
    params.row_parts = kRowDim / cuda::kSumRows;
    params.combined = params.split && (split != Split::kSegmentsCombineThemselves || !Config::kBeforeInRegisters);
    params.segments_per_job = split == Split::kPairsOfSegments ? 2 : 1;
    if (split == Split::kShortFirstJob) {
        params.segments_per_job = params.segments - 1;
        params.first_job_lacks = params.segments_per_job - 1;
    }
    const int jobs_per_sequence =
        (params.segments + params.first_job_lacks + params.segments_per_job - 1) / params.segments_per_job;
    params.summed_segments =
        params.split ? (jobs_per_sequence - 1) * params.segments_per_job - params.first_job_lacks : 0;
    params.state_entries = params.summed_segments + (Config::kBeforeInRegisters ? 0 : 1);
    std::vector<float> workspace(static_cast<std::size_t>(sequences * params.state_entries * Config::kStateFloats),
                                 std::numeric_limits<float>::quiet_NaN());
    params.workspace = workspace.data();
    if (params.split) {
        if (params.summed_segments > 0) {
            split == Split::kSegmentsInTallSums ? sum_segments<T, 128>(params, config)
                                                : sum_segments<T, 64>(params, config);
        }
        if (params.combined) {
            config.blocks = sequences * Config::kStateFloats / Config::kCombineThreads;
            config.threads = Config::kCombineThreads;
            emulator::run(config, [&](char*) { cuda::CombineSegments<kRowDim>::run(params); });
        }
    }
    // Some CTAs have more than one job.
    const int jobs = params.split ? sequences * jobs_per_sequence : sequences;
    config.blocks = split == Split::kShortFirstJob ? sequences + 1 : (jobs + 1) / 2;
    config.threads = Config::kScanThreads;
    config.shared_bytes = Config::kSharedBytes;
    emulator::run(config, [&](char*) { cuda::SegmentedScan<T, kRowDim, false>::run(params); });
}

template <typename T>
void launch(const SegmentedScanParams& params, Split split, const emulator::Config& config) {
    if (params.row_dim <= 64)
        launch<T, 64>(params, split, config);
    else if (params.row_dim <= 128)
        launch<T, 128>(params, split, config);
    else if (params.row_dim <= 192)
        launch<T, 192>(params, split, config);
    else
        launch<T, 256>(params, split, config);
}

void run(Problem& problem, Split split, const emulator::Config& config) {
    const SegmentedScanParams params = scan_params(problem);
    problem.description().dtype == LATTN_FLOAT16 ? launch<__half>(params, split, config)
                                                 : launch<__nv_bfloat16>(params, split, config);
}

// Both parts of a weighted value keep 8 (bf16) or 11 (fp16) bits.
constexpr double kStateError = 5e-6;

void expect_close(const Problem& problem) {
    const Case& c = problem.description();
    const Outputs expected = reference::forward(c.sizes, problem.reference_inputs());
    EXPECT_TRUE(matches(problem.output.values(), expected.output, c.dtype, c.sizes.tokens * c.sizes.head_dim_v))
        << "output: " << c;
    const Comparison states =
        compare(problem.states.values(), expected.states, LATTN_FLOAT32, c.sizes.head_dim_qk * c.sizes.head_dim_v);
    EXPECT_TRUE(states.finite) << c;
    EXPECT_LE(states.error, kStateError) << c;
    EXPECT_LE(states.worst_group, kWorstGroup * kStateError) << "state " << states.worst_group_index << ": " << c;
}

void expect_right(const Case& c, Split split, const emulator::Config& config) {
    Problem problem(c);
    run(problem, split, config);
    expect_close(problem);
    problem.expect_guards_intact();
}

Case small_case(lattn_dtype dtype, int64_t tokens, int64_t d, int64_t e) {
    Case c;
    c.dtype = dtype;
    c.sizes = sizes_of(1, 1, 1, tokens, d, e, 64, true);
    c.rates = {0.02};
    return c;
}

void expect_same_bits(lattn_dtype dtype, int64_t d, int64_t e, double rate, std::initializer_list<Split> splits) {
    for (const bool history : {false, true}) {
        Case c = small_case(dtype, 2 * kSegmentTokens + 70, d, e);
        c.sizes.block_size = 512;
        c.rates = {rate};
        c.history = history;
        Problem whole(c);
        run(whole, Split::kWholeSequences, {});
        expect_close(whole);
        for (const Split split : splits) {
            Problem split_up(c);
            run(split_up, split, {});
            EXPECT_EQ(whole.output.storage(), split_up.output.storage()) << c;
            EXPECT_EQ(whole.states.storage(), split_up.states.storage()) << c;
        }
    }
}

class SegmentedScan : public ::testing::TestWithParam<lattn_dtype> {};

TEST_P(SegmentedScan, EverySchedule) {
    // Long enough for every ring to come round several times, with threads far apart.
    const Case c = small_case(GetParam(), 23 * 64 + 9, 64, 64);
    emulator::for_each_schedule({}, 6, [&](const auto& config) { expect_right(c, Split::kWholeSequences, config); });
}

TEST_P(SegmentedScan, Lengths) {
    for (const int64_t tokens : {1, 2, 63, 64, 65, 127, 128, 200})
        expect_right(small_case(GetParam(), tokens, 64, 64), Split::kWholeSequences, {});
}

TEST_P(SegmentedScan, HeadDims) {
    for (const auto& [d, e] :
         {std::pair{16, 16}, {64, 128}, {96, 72}, {128, 64}, {128, 136}, {72, 256}, {136, 64}, {192, 64}, {256, 72}})
        expect_right(small_case(GetParam(), 150, d, e), Split::kWholeSequences, {});
}

TEST_P(SegmentedScan, Rates) {
    for (const double rate : {0.0, 1e-4, 0.3, 1.0, 100.0}) {
        Case c = small_case(GetParam(), 200, 64, 64);
        c.rates = {rate};
        expect_right(c, Split::kWholeSequences, {});
    }
}

TEST_P(SegmentedScan, HeadsBatchesAndLayouts) {
    for (const Layout layout : {Layout::kContiguous, Layout::kTokenMajor, Layout::kSharedBatch, Layout::kSharedHeads}) {
        for (const int64_t heads_qk : {1, 2, 4}) {
            Case c = small_case(GetParam(), 100, 64, 72);
            c.sizes = sizes_of(2, heads_qk, 4, 100, 64, 72, 64, true);
            c.rates = {0.0, 0.01, 0.2, 3.0};
            c.scale = 0.25;
            c.qk_layout = layout;
            c.v_layout = layout;
            c.output_layout = layout == Layout::kTokenMajor ? layout : Layout::kContiguous;
            expect_right(c, Split::kWholeSequences, {});
        }
    }
}

TEST_P(SegmentedScan, StatesAndHistory) {
    for (const bool history : {false, true}) {
        for (const int64_t block_size : {64, 128, 256}) {
            Case c = small_case(GetParam(), 333, 64, 64);
            c.sizes.block_size = block_size;
            c.history = history;
            c.state_layout = history ? Layout::kTokenMajor : Layout::kContiguous;
            expect_right(c, Split::kWholeSequences, {});
            c.sizes.block_states = false;
            expect_right(c, Split::kWholeSequences, {});
        }
    }
}

TEST_P(SegmentedScan, SegmentsGiveTheSameBitsHoweverTheyAreSplit) {
    // At the last rate a segment's sum is without its first tokens.
    for (const auto& [d, rate] : {std::pair{64, 0.001}, {136, 0.001}, {64, 0.1}, {136, 0.1}})
        expect_same_bits(
            GetParam(), d, 64, rate,
            {Split::kSegments, Split::kPairsOfSegments, Split::kSegmentsCombineThemselves, Split::kShortFirstJob});
}

TEST_P(SegmentedScan, TallSumsGiveTheSameBits) {
    for (const double rate : {0.001, 0.1}) expect_same_bits(GetParam(), 128, 128, rate, {Split::kSegmentsInTallSums});
    expect_same_bits(GetParam(), 200, 72, 0.1, {Split::kSegmentsInTallSums});
}

// What fp16 itself cannot hold.
TEST(SegmentedScanHalf, LargeAndSmallNumbers) {
    for (const double magnitude : {300.0, 1e-3}) {
        Case c = small_case(LATTN_FLOAT16, 200, 64, 64);
        c.rates = {0.001};
        c.history = false;
        // Products of three numbers come back into fp16's range.
        c.scale = 1 / (magnitude * magnitude);
        Problem problem(c);
        for (Tensor* input : {&problem.q, &problem.k}) {
            std::vector<double> values = input->values();
            for (double& value : values) value *= magnitude;
            input->assign(values);
        }
        run(problem, Split::kWholeSequences, {});
        expect_close(problem);
    }
}

INSTANTIATE_TEST_SUITE_P(Types, SegmentedScan, ::testing::Values(LATTN_BFLOAT16, LATTN_FLOAT16),
                         [](const auto& type) { return type.param == LATTN_FLOAT16 ? "fp16" : "bf16"; });

} // namespace
} // namespace lattn::test
