#include "gpu_emulator/warpgroup.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <functional>

#include "gpu_emulator/block.h"

namespace lattn::emulator {
namespace {

// In accumulators that products write: a signalling NaN, which arithmetic turns into another one.
constexpr uint32_t kPoison = 0x7f8afe5a;

// The element (row, column) of a 64-row tile that a thread holds in values[i].
int row_of(int thread, int i) {
    return thread / 32 * 16 + thread % 32 / 4 + i / 2 % 2 * 8;
}

int column_of(int thread, int i) {
    return i / 4 * 8 + thread % 4 * 2 + i % 2;
}

float to_float(ElementType element, uint32_t bits) {
    if (element == ElementType::kBfloat16) return std::bit_cast<float>(bits << 16);
    return __half2float(std::bit_cast<__half>(static_cast<uint16_t>(bits)));
}

bool is_poisoned(const float* values, int count) {
    return std::all_of(values, values + count,
                       [](const float& value) { return std::memcmp(&value, &kPoison, sizeof(value)) == 0; });
}

// PTX's matrix descriptor; bytes.
struct Descriptor {
    uint32_t start, leading, stride;

    explicit Descriptor(uint64_t bits) {
        const auto field = [&](int first, int count) {
            return static_cast<uint32_t>(bits >> first & ((uint64_t{1} << count) - 1));
        };
        start = field(0, 14) << 4;
        leading = field(16, 14) << 4;
        stride = field(32, 14) << 4;
        if (field(62, 2) != 1) fail("wgmma: the descriptor's swizzle mode is not that of 128 bytes");
        if (field(49, 3) != 0) fail("wgmma: the descriptor's base offset is not 0");
        if ((field(14, 2) | field(30, 2) | field(46, 3) | field(52, 10)) != 0)
            fail("wgmma: unused bits of the descriptor are set");
        if ((start & 0x380) != 0)
            fail("wgmma: operand b at " + std::to_string(start) + " does not start in the first row of 1024 bytes");
    }
};

// b as [k][n] in fp32.
void read_operand(const WgmmaShape& shape, float (&b)[16][128]) {
    const Descriptor descriptor(shape.b);
    const auto read_vector = [&](uint32_t address, auto&& put) {
        uint16_t values[8];
        std::memcpy(values, block().shared.at_async(swizzle_128(address), "wgmma"), sizeof(values));
        for (int i = 0; i < 8; ++i) put(i, to_float(shape.element, values[i]));
    };
    const auto columns = static_cast<uint32_t>(shape.columns);
    if (shape.b_is_n_contiguous) {
        for (uint32_t k = 0; k < 16; ++k) {
            for (uint32_t n = 0; n < columns; n += 8)
                read_vector(descriptor.start + k % 8 * 128 + k / 8 * descriptor.stride + n / 64 * descriptor.leading +
                                n % 64 * 2,
                            [&](int i, float value) { b[k][n + static_cast<uint32_t>(i)] = value; });
        }
    } else {
        for (uint32_t n = 0; n < columns; ++n) {
            for (uint32_t k = 0; k < 16; k += 8)
                read_vector(descriptor.start + n % 8 * 128 + n / 8 * descriptor.stride + k * 2,
                            [&](int i, float value) { b[k + static_cast<uint32_t>(i)][n] = value; });
        }
    }
}

} // namespace

void Warpgroup::multiply(const WgmmaShape& shape, float* acc, const uint32_t (&a)[4]) {
    const std::shared_ptr<Product> product = next_step(Step::Kind::kMultiply, 0, &shape);
    const int thread = index_in_group();
    product->acc = accumulators(shape, acc, *product);
    for (int i = 0; i < 8; ++i)
        product->a[row_of(thread, i)][column_of(thread, i)] = to_float(shape.element, a[i / 2] >> i % 2 * 16 & 0xffff);
    if (++product->issued < kThreads) return;
    block().threads.wake(Wait::For::kProducts, static_cast<uint32_t>(index_));
    if (block().acts_early()) {
        while (progress()) {
        }
    }
}

// The tile that stands for a thread's accumulators, which are NaN from now on.
std::shared_ptr<Warpgroup::Tile> Warpgroup::accumulators(const WgmmaShape& shape, float* acc, const Product& product) {
    Thread& thread = self();
    const int count = shape.columns / 2;
    std::shared_ptr<Tile> tile = product.acc;
    for (InFlight& other : thread.in_flight) {
        if (other.acc == acc && other.count == count) {
            if (!is_poisoned(acc, count)) fail("wgmma: accumulators were written while a product was under way");
            if (tile != nullptr && tile != other.tile)
                fail("wgmma: the warpgroup's threads name different accumulators");
            other.last_group = thread.groups;
            return other.tile;
        }
        const std::less<const float*> before;
        if (before(acc, other.acc + other.count) && before(other.acc, acc + count))
            fail("wgmma: accumulators overlap others that a product is under way for");
    }
    if (!thread.fenced) fail("wgmma: wgmma_fence() is missing before a product with accumulators that are not in use");
    if (tile == nullptr) tile = std::make_shared<Tile>();
    const int index = index_in_group();
    for (int i = 0; i < count; ++i) {
        tile->values[row_of(index, i)][column_of(index, i)] = acc[i];
        std::memcpy(acc + i, &kPoison, sizeof(kPoison));
    }
    thread.in_flight.push_back({acc, count, tile, thread.groups});
    return tile;
}

void Warpgroup::fence() {
    next_step(Step::Kind::kFence, 0, nullptr);
    self().fenced = true;
}

void Warpgroup::commit() {
    next_step(Step::Kind::kCommit, 0, nullptr);
    ++self().groups;
}

void Warpgroup::wait(int pending_groups) {
    next_step(Step::Kind::kWait, pending_groups, nullptr);
    Thread& thread = self();
    const int groups = thread.groups - pending_groups;
    wanted_groups_ = std::max(wanted_groups_, groups);
    block().threads.wait({Wait::For::kProducts, static_cast<uint32_t>(index_), 0}, [&] {
        if (!is_issued(groups)) return false;
        if (!block().acts_late()) finish(groups);
        return products_.empty() || products_.front()->group >= groups;
    });
    const auto done = [&](const InFlight& accumulators) { return accumulators.last_group < groups; };
    for (const InFlight& accumulators : thread.in_flight) {
        if (!done(accumulators)) continue;
        deliver(accumulators);
        thread.fenced = false;
    }
    std::erase_if(thread.in_flight, done);
}

void Warpgroup::give_registers(int count) {
    next_step(Step::Kind::kGiveRegisters, count, nullptr);
    if (count == registers_) return; // the first thread gave them
    if (count > registers_)
        fail("setmaxnreg.dec: " + std::to_string(count) + " registers, more than the " + std::to_string(registers_) +
             " there are");
    block().free_registers += (registers_ - count) * kThreads;
    registers_ = count;
    block().threads.wake(Wait::For::kRegisters, 0);
}

void Warpgroup::take_registers(int count) {
    next_step(Step::Kind::kTakeRegisters, count, nullptr);
    if (count < registers_)
        fail("setmaxnreg.inc: " + std::to_string(count) + " registers, fewer than the " + std::to_string(registers_) +
             " there are");
    block().threads.wait({Wait::For::kRegisters, 0, static_cast<uint32_t>(count)},
                         [&] { return (count - registers_) * kThreads <= block().free_registers; });
    block().free_registers -= (count - registers_) * kThreads;
    registers_ = count;
}

bool Warpgroup::progress_wanted() {
    if (!finish(wanted_groups_)) return false;
    block().threads.wake(Wait::For::kProducts, static_cast<uint32_t>(index_));
    return true;
}

// Does products of the first `groups` groups, as far as all threads have issued them; false if there are none.
bool Warpgroup::finish(int groups) {
    bool any = false;
    while (!products_.empty() && products_.front()->group < groups && progress()) any = true;
    return any;
}

bool Warpgroup::progress() {
    if (products_.empty() || products_.front()->issued < kThreads) return false;
    const std::shared_ptr<Product> product = products_.front();
    products_.pop_front();
    execute(*product);
    return true;
}

void Warpgroup::thread_ended(int thread) {
    if (!threads_[thread % kThreads].in_flight.empty())
        fail("wgmma: the thread ended without waiting for its products");
}

void Warpgroup::check_ended() const {
    if (!steps_.empty())
        fail("warpgroup " + std::to_string(index_) + ": only " + std::to_string(steps_.front().threads) +
             " of 128 threads came to " + describe(steps_.front().kind));
}

// This thread's part in the next step of the group.
std::shared_ptr<Warpgroup::Product> Warpgroup::next_step(Step::Kind kind, int number, const WgmmaShape* shape) {
    if ((index_ + 1) * kThreads > block().threads.threads())
        fail(describe(kind) + ": the block has no four warps from warp " + std::to_string(index_ * 4) + " on");
    Thread& thread = self();
    const auto index = static_cast<std::size_t>(thread.steps++ - first_step_);
    if (index == steps_.size()) {
        steps_.push_back({kind, number, nullptr});
        if (shape != nullptr) {
            steps_.back().product = std::make_shared<Product>(*shape, thread.groups);
            products_.push_back(steps_.back().product);
        }
    }
    Step& step = steps_[index];
    if (step.kind != kind || step.number != number)
        fail(describe(kind) + ": other threads of the warpgroup are at " + describe(step.kind));
    if (shape != nullptr && *shape != step.product->shape)
        fail("wgmma: the warpgroup's threads disagree about operand b, the shape or whether to accumulate");
    std::shared_ptr<Product> product = step.product;
    ++step.threads;
    while (!steps_.empty() && steps_.front().threads == kThreads) {
        steps_.pop_front();
        ++first_step_;
    }
    return product;
}

// Whether all threads have issued the products of the first `groups` groups.
bool Warpgroup::is_issued(int groups) const {
    return std::all_of(products_.begin(), products_.end(), [&](const std::shared_ptr<Product>& product) {
        return product->group >= groups || product->issued == kThreads;
    });
}

void Warpgroup::deliver(const InFlight& accumulators) const {
    if (!is_poisoned(accumulators.acc, accumulators.count))
        fail("wgmma: accumulators were written while a product was under way");
    const int thread = index_in_group();
    for (int i = 0; i < accumulators.count; ++i)
        accumulators.acc[i] = accumulators.tile->values[row_of(thread, i)][column_of(thread, i)];
}

void Warpgroup::execute(Product& product) {
    float b[kDepth][kMaxColumns];
    read_operand(product.shape, b);
    const int columns = product.shape.columns;
    for (int row = 0; row < kRows; ++row) {
        float* const sums = product.acc->values[row];
        if (!product.shape.accumulate) std::fill_n(sums, columns, 0.0f);
        for (int k = 0; k < kDepth; ++k) {
            const float a = product.a[row][k];
            for (int n = 0; n < columns; ++n) sums[n] += a * b[k][n];
        }
    }
}

std::string Warpgroup::describe(Step::Kind kind) {
    switch (kind) {
        case Step::Kind::kMultiply:
            return "wgmma.mma_async";
        case Step::Kind::kFence:
            return "wgmma.fence";
        case Step::Kind::kCommit:
            return "wgmma.commit_group";
        case Step::Kind::kWait:
            return "wgmma.wait_group";
        case Step::Kind::kGiveRegisters:
            return "setmaxnreg.dec";
        case Step::Kind::kTakeRegisters:
            return "setmaxnreg.inc";
    }
    return "";
}

Warpgroup::Thread& Warpgroup::self() {
    return threads_[index_in_group()];
}

int Warpgroup::index_in_group() const {
    return block().threads.current() % kThreads;
}

} // namespace lattn::emulator
