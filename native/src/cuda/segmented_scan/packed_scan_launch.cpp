#include "cuda/segmented_scan/packed_scan_launch.h"

#include <algorithm>
#include <climits>

#include "common/dtype.h"
#include "common/problem.h"
#include "cuda/host/views.h"
#include "cuda/packed/clear_padding_launch.h"
#include "cuda/segmented_scan/segmented_scan_config.h"
#include "cuda/segmented_scan/segmented_scan_launch.h"
#include "cuda/segmented_scan/sequence_table_params.h"

namespace lattn::cuda {
namespace {

constexpr int64_t kCombineThreads = SegmentedScanConfig<64>::kCombineThreads; // in every instantiation

// What the host knows of a packed batch: how many tokens and sequences there are. The rest is known on the device.
struct PackedPlan {
    int64_t sequences;
    int64_t heads_and_slices;
    int64_t value_slices;
    int64_t row_parts;
    int64_t state_floats;
    int64_t outside_entries; // without room in registers S has a place in the workspace
    int64_t part_capacity;
    bool may_cut;
    bool few;

    // Offsets into the workspace.
    uint64_t parts[kPackedPasses];
    uint64_t counts;
    uint64_t copies;
    uint64_t states;
    uint64_t bytes;

    PackedPlan(const Device& device, const ScanCall& call, int64_t row_dim) {
        const lattn_problem& problem = call.problem;
        sequences = problem.batch;
        value_slices = segmented_scan_value_slices(call);
        heads_and_slices = problem.heads_v * value_slices;
        row_parts = row_dim / kSumRows;
        state_floats = row_dim * SegmentedScanConfig<64>::kValueCols;
        outside_entries = row_dim > kBeforeInRegistersDim ? 1 : 0;
        part_capacity = problem.tokens / kSegmentTokens + sequences;
        // A sequence has no more tokens than all of them together.
        may_cut = problem.tokens > kSegmentTokens &&
                  kLongestJobQuarters * heads_and_slices < 4 * int64_t{device.multiprocessors()};
        few = !may_cut && sequences <= kFewSequences && (call.pool == nullptr || call.pool->slot_count <= INT_MAX);

        bytes = 0;
        if (!few) take(sequences * sizeof(SequenceScan)); // the table
        for (uint64_t& offset : parts)
            offset = take(few ? 0 : static_cast<uint64_t>(part_capacity) * sizeof(PackedPart));
        counts = take(few ? 0 : kPackedPasses * sizeof(int32_t));
        const int64_t most_copies = may_cut && call.pool != nullptr ? problem.tokens / kCutSequenceTokens + 1 : 0;
        copies = take(static_cast<uint64_t>(most_copies * problem.heads_v * call.row_dim() * call.value_dim()) *
                      sizeof(float));
        const int64_t most_sums = may_cut ? problem.tokens / kSegmentTokens : 0;
        states =
            take(static_cast<uint64_t>((most_sums + outside_entries * sequences) * heads_and_slices * state_floats) *
                 sizeof(float));
    }

private:
    uint64_t take(uint64_t size) {
        constexpr uint64_t kAlignment = 256;
        const uint64_t offset = bytes;
        bytes += (size + kAlignment - 1) / kAlignment * kAlignment;
        return offset;
    }
};

class PackedScan {
public:
    PackedScan(Device& device, const ScanCall& call, int kernel)
        : device_(device),
          call_(call),
          plan_(device, call, kernel_at(kernel).row_dim),
          packed_(packed_batch(call.problem, call.pool)) {}

    Status launch() {
        LATTN_RETURN_IF_ERROR(check_workspace(call_.workspace, call_.workspace_bytes, plan_.bytes));
        LATTN_RETURN_IF_ERROR(make_call_params(device_, call_, scan_));
        scan_.row_parts = static_cast<int32_t>(plan_.row_parts);
        scan_.workspace = workspace<float>(plan_.states);
        scan_.state_type = packed_.pool_type;
        scan_.b_and_c_recur = plan_.may_cut;
        LATTN_RETURN_IF_ERROR(encode_zeros(device_.driver(), call_.b, SegmentedScanConfig<64>::kChunk, zeros_));
        LATTN_RETURN_IF_ERROR(box_states());
        if (!plan_.few) LATTN_RETURN_IF_ERROR(launch_table());
        const int64_t multiprocessors = device_.multiprocessors();
        if (plan_.may_cut) {
            LATTN_RETURN_IF_ERROR(launch_pass(Operation::kPackedSums, kSumsPass,
                                              plan_.heads_and_slices * plan_.row_parts,
                                              multiprocessors * SegmentSumConfig<kSumRows>::kCtas));
            constexpr int64_t kCombineCtas = 8; // per multiprocessor
            LATTN_RETURN_IF_ERROR(launch_pass(Operation::kCombinePacked, kCombinePass,
                                              plan_.heads_and_slices * (plan_.state_floats / kCombineThreads),
                                              multiprocessors * kCombineCtas));
        }
        return launch_pass(Operation::kPackedScan, kScanPass, plan_.heads_and_slices, multiprocessors);
    }

private:
    template <typename T>
    T* workspace(uint64_t offset) const {
        return reinterpret_cast<T*>(static_cast<char*>(call_.workspace) + offset);
    }

    // Where registers hold the state, copies bring it there.
    Status box_states() {
        copies_states_ =
            call_.pool != nullptr && plan_.outside_entries == 0 && can_box_states(call_.problem, *call_.pool);
        if (!copies_states_) return ok();
        const auto rows = static_cast<uint32_t>(state_part_rows(plan_.row_parts * kSumRows));
        return encode_boxed_states(device_.driver(), call_.problem, *call_.pool, rows, pool_map_);
    }

    // Whole rows of value slices, at multiples of 16 bytes.
    int32_t prefetched_row_bytes() const {
        constexpr int64_t kValueCols = SegmentedScanConfig<64>::kValueCols;
        const int64_t element_bytes = packed_.pool_type == kPoolFloat32 ? 4 : 2;
        const auto aligned = [&](int64_t stride) { return stride * element_bytes % 16 == 0; };
        const bool rows = packed_.pool != nullptr && packed_.stride_column == 1 &&
                          call_.value_dim() % kValueCols == 0 && reinterpret_cast<uintptr_t>(packed_.pool) % 16 == 0 &&
                          aligned(packed_.stride_slot) && aligned(packed_.stride_h) && aligned(packed_.stride_row);
        return rows && !copies_states_ ? static_cast<int32_t>(kValueCols * element_bytes) : 0;
    }

    void set_call(PackedCall& packed) const {
        packed.call = scan_;
        packed.packed = packed_;
        packed.padding = clear_padding_params(call_);
        packed.multiprocessors = device_.multiprocessors();
        packed.may_cut = plan_.may_cut;
        packed.copies_states = copies_states_;
        packed.prefetched_row_bytes = prefetched_row_bytes();
        packed.state_floats = static_cast<int32_t>(plan_.state_floats);
        packed.outside_entries = static_cast<int32_t>(plan_.outside_entries);
        packed.initial_copies = workspace<char>(plan_.copies);
    }

    Status launch_table() {
        const lattn_problem& problem = call_.problem;
        SequenceTableParams table{};
        set_call(table);
        table.table = workspace<SequenceScan>(0);
        for (int pass = 0; pass < kPackedPasses; ++pass) table.parts[pass] = workspace<PackedPart>(plan_.parts[pass]);
        table.part_counts = workspace<int32_t>(plan_.counts);
        table.part_capacity = static_cast<int32_t>(plan_.part_capacity);
        const int64_t most_clearing = int64_t{4} * device_.multiprocessors();
        const int64_t clearing = call_.pool != nullptr
                                     ? most_clearing
                                     : std::min(ceil_div(problem.tokens, int64_t{kClearPaddingTokens}), most_clearing);
        return launch(Operation::kSequenceTable, 1 + clearing, table);
    }

    Status launch_pass(Operation operation, PackedPass pass, int64_t jobs_per_part, int64_t most_blocks) {
        PackedScanParams params{};
        set_call(params);
        params.few = plan_.few;
        params.a = scan_.a;
        params.b = scan_.b;
        params.c = scan_.c;
        params.out = scan_.out;
        params.zeros = zeros_;
        params.pool_map = pool_map_;
        params.sequences = workspace<const SequenceScan>(0);
        params.parts = workspace<const PackedPart>(plan_.parts[pass]);
        params.part_count = workspace<const int32_t>(plan_.counts) + pass;
        params.jobs_per_part = static_cast<uint32_t>(jobs_per_part);
        const int64_t blocks = std::min(most_blocks, plan_.part_capacity * jobs_per_part);
        return launch(operation, blocks, params,
                      pass == kScanPass ? ctas_side_by_side(device_, call_, plan_.may_cut, blocks) : 1);
    }

    template <typename Params>
    Status launch(Operation operation, int64_t blocks, const Params& params, uint32_t cluster_blocks = 1) {
        int kernel = 0;
        const bool any_type = operation == Operation::kSequenceTable;
        LATTN_RETURN_IF_ERROR(
            find_kernel(operation, any_type ? 0 : call_.problem.dtype, 0, any_type ? 0 : call_.row_dim(), kernel));
        return device_.launch(kernel, blocks, call_.stream, params, Start::kDuringPrior, cluster_blocks);
    }

    Device& device_;
    const ScanCall& call_;
    PackedPlan plan_;
    PackedBatch packed_;
    SegmentedScanParams scan_{}; // of all tokens as one sequence
    bool copies_states_ = false;
    ptx::TensorMap zeros_{};
    ptx::TensorMap pool_map_{};
};

} // namespace

Status check_packed_scan(const Device& device, const ScanCall& call, int& kernel) {
    LATTN_RETURN_IF_ERROR(
        find_segmented_scan(device, Operation::kPackedScan, call.problem.dtype, call.row_dim(), kernel));
    LATTN_RETURN_IF_ERROR(check_scan_tensors(call));
    const PackedPlan plan(device, call, kernel_at(kernel).row_dim);
    const int64_t blocks = plan.state_floats / kCombineThreads;
    if (plan.part_capacity > INT_MAX / (plan.heads_and_slices * std::max(blocks, plan.row_parts)))
        return error(LATTN_NOT_SUPPORTED, "the Hopper kernel takes at most %d parts of work, not %lld x %lld x %lld",
                     INT_MAX, static_cast<long long>(plan.part_capacity), static_cast<long long>(plan.heads_and_slices),
                     static_cast<long long>(std::max(blocks, plan.row_parts)));
    return ok();
}

uint64_t packed_scan_workspace_bytes(const Device& device, const ScanCall& call, int kernel) {
    return PackedPlan(device, call, kernel_at(kernel).row_dim).bytes;
}

Status launch_packed_scan(Device& device, const ScanCall& call, int kernel) {
    const Device::CurrentContext current(device); // for the tensor maps
    LATTN_RETURN_IF_ERROR(current.status("the packed scan"));
    return PackedScan(device, call, kernel).launch();
}

} // namespace lattn::cuda
