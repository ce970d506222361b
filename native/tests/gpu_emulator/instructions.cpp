#include "gpu_emulator/instructions.h"

#include "gpu_emulator/block.h"

namespace lattn::emulator {

char* dynamic_shared() {
    return block().shared.begin();
}

uint32_t shared_address(const void* pointer) {
    return block().shared.address_of(pointer);
}

void mbarrier_init(uint32_t address, uint32_t arrivals) {
    block().mbarriers.init(address, arrivals);
}

void fence_mbarrier_init() {
    block().mbarriers.fence_init();
}

void mbarrier_arrive(uint32_t address) {
    block().maybe_yield();
    block().mbarriers.arrive(address);
    block().maybe_yield();
}

void mbarrier_arrive_expect_bytes(uint32_t address, uint32_t bytes) {
    block().maybe_yield();
    block().mbarriers.expect(address, bytes);
    block().mbarriers.arrive(address);
    block().maybe_yield();
}

void mbarrier_wait(uint32_t address, uint32_t parity) {
    block().maybe_yield();
    block().mbarriers.wait(address, parity);
}

void prefetch_map(const TensorMap& map) {
    CopyEngine::check(map, "prefetch_map");
}

void load_box(uint32_t shared, const TensorMap& map, uint32_t barrier, const int32_t (&at)[4]) {
    block().copies.load(shared, map, barrier, at);
    block().maybe_yield();
}

void store_box(const TensorMap& map, uint32_t shared, const int32_t (&at)[4]) {
    block().copies.store(map, shared, at);
    block().maybe_yield();
}

void commit_stores() {
    block().copies.commit_stores();
}

void wait_stores_read(int pending_groups) {
    block().maybe_yield();
    block().copies.wait_stores_read(pending_groups);
}

void wait_stores() {
    block().copies.wait_stores();
}

void fence_async_shared() {
    block().shared.fence(block().threads.current());
    block().maybe_yield();
}

void load_matrices(uint32_t (&matrices)[4], uint32_t row_address, bool transposed) {
    Warp::Lane lane;
    lane.value = row_address;
    lane.matrices = matrices;
    block().warp().join(transposed ? Warp::Operation::kLoadMatricesTransposed : Warp::Operation::kLoadMatrices,
                        Warp::kAllLanes, lane);
}

void store_matrices(uint32_t row_address, const uint32_t (&matrices)[4]) {
    uint32_t words[4] = {matrices[0], matrices[1], matrices[2], matrices[3]};
    Warp::Lane lane;
    lane.value = row_address;
    lane.matrices = words;
    block().warp().join(Warp::Operation::kStoreMatrices, Warp::kAllLanes, lane);
}

void multiply(ElementType element, float (&acc)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    Warp::Lane lane;
    lane.accumulators = acc;
    lane.a = a;
    lane.b = b;
    block().warp().join(
        element == ElementType::kTf32 ? Warp::Operation::kMultiplyTf32 : Warp::Operation::kMultiplyBfloat16,
        Warp::kAllLanes, lane);
}

void copy_16(uint32_t destination, const void* source, uint32_t source_bytes) {
    block().thread_copies().copy(destination, source, source_bytes);
}

void commit_copies() {
    block().thread_copies().commit();
}

void wait_copies(int pending_groups) {
    block().maybe_yield();
    block().thread_copies().wait(pending_groups);
}

void wgmma_multiply(const WgmmaShape& shape, float* acc, const uint32_t (&a)[4]) {
    block().warpgroup().multiply(shape, acc, a);
}

void wgmma_fence() {
    block().warpgroup().fence();
}

void wgmma_commit() {
    block().warpgroup().commit();
}

void wgmma_wait(int pending_groups) {
    block().maybe_yield();
    block().warpgroup().wait(pending_groups);
}

void give_registers(int count) {
    block().warpgroup().give_registers(count);
}

void take_registers(int count) {
    block().warpgroup().take_registers(count);
}

void wait_for_prior_kernel() {
    block().maybe_yield();
    block().wait_for_prior_kernel();
}

void barrier_sync(int id, int threads) {
    block().sync_named(id, threads);
}

void sync_block() {
    block().sync_named(0, block().threads.threads());
}

void sync_warp(uint32_t mask) {
    Warp::Lane lane;
    block().warp().join(Warp::Operation::kSync, mask, lane);
}

uint32_t shuffle(uint32_t mask, uint32_t value, int lane, int width) {
    const int self = block().threads.current() % 32;
    Warp::Lane part;
    part.value = value;
    part.source = self / width * width + lane % width;
    block().warp().join(Warp::Operation::kShuffle, mask, part);
    return part.value;
}

uint32_t shuffle_xor(uint32_t mask, uint32_t value, int lane_mask, int width) {
    const int self = block().threads.current() % 32;
    const int source = self ^ lane_mask;
    Warp::Lane part;
    part.value = value;
    part.source = source / width > self / width ? self : source;
    block().warp().join(Warp::Operation::kShuffle, mask, part);
    return part.value;
}

} // namespace lattn::emulator
