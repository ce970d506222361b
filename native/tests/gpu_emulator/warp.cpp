#include "gpu_emulator/warp.h"

#include <bit>
#include <cstring>

#include "gpu_emulator/block.h"

namespace lattn::emulator {
namespace {

constexpr uint32_t kRowBytes = 16;

uint16_t element(const unsigned char* rows, int row, int column) {
    uint16_t value;
    std::memcpy(&value, rows + row * kRowBytes + column * 2, sizeof(value));
    return value;
}

void load_matrix(Warp::Lane* const (&lanes)[32], int matrix, bool transposed) {
    const char* const user = "ldmatrix";
    unsigned char rows[8 * kRowBytes];
    for (int row = 0; row < 8; ++row)
        std::memcpy(rows + row * kRowBytes,
                    block().shared.at(lanes[matrix * 8 + row]->value, kRowBytes, kRowBytes, user), kRowBytes);
    for (int lane = 0; lane < 32; ++lane) {
        const int row = lane / 4;
        const int column = lane % 4 * 2;
        const uint32_t low = transposed ? element(rows, column, row) : element(rows, row, column);
        const uint32_t high = transposed ? element(rows, column + 1, row) : element(rows, row, column + 1);
        lanes[lane]->matrices[matrix] = high << 16 | low;
    }
}

void store_matrix(Warp::Lane* const (&lanes)[32], int matrix, int first_thread) {
    for (int row = 0; row < 8; ++row) {
        uint32_t words[4];
        for (int pair = 0; pair < 4; ++pair) words[pair] = lanes[row * 4 + pair]->matrices[matrix];
        const int lane = matrix * 8 + row;
        block().shared.write_ordinary(lanes[lane]->value, words, first_thread + lane, "stmatrix");
    }
}

// Operands are words of one tf32, or of two bf16 of which the lower half is the first.
double operand(uint32_t word, int half, bool bfloat16) {
    if (!bfloat16) return static_cast<double>(std::bit_cast<float>(word));
    return static_cast<double>(std::bit_cast<float>(half == 0 ? word << 16 : word & 0xffff0000u));
}

// PTX's fragments of m16n8k16 (bf16) and m16n8k8 (tf32): lane 4g + t holds of a row g and g + 8, of b column g, and of
// the accumulators columns 2t and 2t + 1 of both rows.
template <bool kBfloat16>
void multiply(Warp::Lane* const (&lanes)[32]) {
    constexpr int kPerWord = kBfloat16 ? 2 : 1;
    constexpr int kDepth = 8 * kPerWord;
    double a[16][kDepth], b[kDepth][8], sums[16][8];
    for (int lane = 0; lane < 32; ++lane) {
        const Warp::Lane& part = *lanes[lane];
        const int g = lane / 4, t = lane % 4;
        for (int i = 0; i < 4; ++i) sums[g + i / 2 * 8][2 * t + i % 2] = static_cast<double>(part.accumulators[i]);
        for (int half = 0; half < kPerWord; ++half) {
            const int k = t * kPerWord + half;
            for (int i = 0; i < 4; ++i)
                a[g + i % 2 * 8][k + i / 2 * 4 * kPerWord] = operand(part.a[i], half, kBfloat16);
            for (int i = 0; i < 2; ++i) b[k + i * 4 * kPerWord][g] = operand(part.b[i], half, kBfloat16);
        }
    }
    for (int row = 0; row < 16; ++row)
        for (int k = 0; k < kDepth; ++k)
            for (int column = 0; column < 8; ++column) sums[row][column] += a[row][k] * b[k][column];
    for (int lane = 0; lane < 32; ++lane)
        for (int i = 0; i < 4; ++i)
            lanes[lane]->accumulators[i] = static_cast<float>(sums[lane / 4 + i / 2 * 8][lane % 4 * 2 + i % 2]);
}

} // namespace

void Warp::join(Operation operation, uint32_t mask, Lane& lane) {
    const int index = block().threads.current() % 32;
    const uint32_t bit = uint32_t{1} << index;
    if ((mask & bit) == 0) fail(describe(operation) + ": the thread is not in its mask");
    std::size_t found = 0;
    while (found < meetings_.size() && (meetings_[found].mask & mask) == 0) ++found;
    if (found == meetings_.size()) meetings_.push_back({operation, mask});
    Meeting& meeting = meetings_[found];
    if (meeting.operation != operation || meeting.mask != mask)
        fail(describe(operation) +
             ": other lanes of the warp are at another operation or mask: " + describe(meeting.operation));
    meeting.present |= bit;
    meeting.lanes[index] = &lane;
    if (is_complete(meeting)) {
        finish(found);
        return;
    }
    block().threads.wait({Wait::For::kWarp, static_cast<uint32_t>(index_), static_cast<uint32_t>(operation)},
                         [&] { return lane.done; });
}

// Lanes that have ended count as present for __syncwarp().
void Warp::lane_ended(int lane) {
    ended_ |= uint32_t{1} << lane;
    for (std::size_t i = meetings_.size(); i-- > 0;) {
        if (is_complete(meetings_[i])) finish(i);
    }
}

bool Warp::is_complete(const Meeting& meeting) const {
    const uint32_t present = meeting.operation == Operation::kSync ? meeting.present | ended_ : meeting.present;
    return (present & meeting.mask) == meeting.mask;
}

void Warp::finish(std::size_t meeting) {
    Meeting complete = meetings_[meeting];
    meetings_.erase(meetings_.begin() + static_cast<std::ptrdiff_t>(meeting));
    execute(complete);
    for (Lane* lane : complete.lanes) {
        if (lane != nullptr) lane->done = true;
    }
    block().threads.wake(Wait::For::kWarp, static_cast<uint32_t>(index_));
}

void Warp::execute(Meeting& meeting) {
    switch (meeting.operation) {
        case Operation::kSync:
            return;
        case Operation::kShuffle: {
            uint32_t values[32] = {};
            for (int lane = 0; lane < 32; ++lane) {
                if (meeting.lanes[lane] != nullptr) values[lane] = meeting.lanes[lane]->value;
            }
            for (Lane* lane : meeting.lanes) {
                if (lane == nullptr) continue;
                if (meeting.lanes[lane->source] == nullptr)
                    fail("shuffle: lane " + std::to_string(lane->source) + " is read and not in the mask");
                lane->value = values[lane->source];
            }
            return;
        }
        case Operation::kLoadMatrices:
        case Operation::kLoadMatricesTransposed:
            for (int matrix = 0; matrix < 4; ++matrix)
                load_matrix(meeting.lanes, matrix, meeting.operation == Operation::kLoadMatricesTransposed);
            return;
        case Operation::kStoreMatrices:
            for (int matrix = 0; matrix < 4; ++matrix)
                store_matrix(meeting.lanes, matrix, block().threads.current() / 32 * 32);
            return;
        case Operation::kMultiplyBfloat16:
            multiply<true>(meeting.lanes);
            return;
        case Operation::kMultiplyTf32:
            multiply<false>(meeting.lanes);
            return;
    }
}

std::string Warp::describe(Operation operation) {
    switch (operation) {
        case Operation::kSync:
            return "__syncwarp";
        case Operation::kShuffle:
            return "shuffle";
        case Operation::kLoadMatrices:
            return "ldmatrix";
        case Operation::kLoadMatricesTransposed:
            return "ldmatrix.trans";
        case Operation::kStoreMatrices:
            return "stmatrix";
        case Operation::kMultiplyBfloat16:
        case Operation::kMultiplyTf32:
            return "mma";
    }
    return "";
}

} // namespace lattn::emulator
