#include "gpu/mirror.h"

#include <algorithm>
#include <cstdlib>
#include <functional>
#include <stdexcept>
#include <string>
#include <thread>

namespace lattn::test {
namespace {

// NaN in every floating type.
constexpr unsigned char kPoison = 0xff;

std::vector<Mirror::Bytes> all_bytes(const std::vector<Tensor*>& tensors, const std::vector<Tensor*>& more = {}) {
    std::vector<Mirror::Bytes> result;
    for (Tensor* tensor : tensors) result.push_back(tensor->storage());
    for (Tensor* tensor : more) result.push_back(tensor->storage());
    return result;
}

template <typename T>
Mirror::Bytes as_bytes(std::vector<T>& values) {
    return {reinterpret_cast<unsigned char*>(values.data()), values.size() * sizeof(T)};
}

std::vector<Mirror::Bytes> inputs_of(Decode& decode, bool in_place) {
    std::vector<Mirror::Bytes> inputs = all_bytes({&decode.q, &decode.k, &decode.v, &decode.rate});
    inputs.push_back(as_bytes(decode.slots()));
    inputs.push_back(as_bytes(decode.slots32()));
    inputs.push_back(as_bytes(decode.accepted()));
    inputs.push_back(as_bytes(decode.accepted32()));
    if (!in_place) inputs.push_back(decode.state_in.storage());
    return inputs;
}

std::vector<Mirror::Bytes> results_of(Decode& decode, bool in_place) {
    return all_bytes({&decode.output, in_place ? &decode.state_in : &decode.state_out});
}

constexpr std::size_t kGuardBytes = 256;

// A sanitizer that looks for reads of uninitialized memory must not find the workspace filled.
bool fills_workspace() {
    const char* value = std::getenv("LATTN_TEST_FILL_WORKSPACE");
    return value == nullptr || std::string(value) != "0";
}

} // namespace

Mirror::Mirror(Device& device, const std::vector<Bytes>& inputs, const std::vector<Bytes>& results) : device_(device) {
    for (const Bytes& input : inputs) add(input, true);
    for (const Bytes& result : results) add(result, false);
    device_.synchronize();
    for (Region& region : regions_) std::fill(region.host.begin(), region.host.end(), kPoison);
}

Mirror::Mirror(Device& device, Problem& problem, const std::vector<Tensor*>& more_results)
    : Mirror(device, all_bytes(problem.inputs()), all_bytes(problem.results(), more_results)) {}

Mirror::Mirror(Device& device, Decode& decode, bool in_place)
    : Mirror(device, inputs_of(decode, in_place), results_of(decode, in_place)) {}

void Mirror::add(Bytes host, bool is_input) {
    if (host.empty()) return;
    Region region{host, {}, allocate(host.size())};
    if (is_input) region.before.assign(host.begin(), host.end());
    device_.upload(region.memory.get(), host.data(), host.size());
    regions_.push_back(std::move(region));
}

Mirror::Mirror(Device& device, GatedNormProblem& problem)
    : Mirror(device, all_bytes(problem.inputs()), all_bytes(problem.results())) {}

void* Mirror::at(const void* host) const {
    if (host == nullptr) return nullptr;
    const auto* byte = static_cast<const unsigned char*>(host);
    for (const Region& region : regions_) {
        const unsigned char* begin = region.host.data();
        if (std::less<>()(byte, begin) || !std::less<>()(byte, begin + region.host.size())) continue;
        return static_cast<unsigned char*>(region.memory.get()) + (byte - begin);
    }
    throw std::out_of_range("a pointer to memory that is not mirrored");
}

void* Mirror::workspace(uint64_t bytes) {
    if (bytes == 0) return nullptr;
    workspace_bytes_ += bytes;
    workspaces_.push_back({allocate(bytes + kGuardBytes), bytes});
    auto* memory = static_cast<unsigned char*>(workspaces_.back().memory.get());
    if (fills_workspace()) device_.fill(memory, kPoison, bytes);
    device_.fill(memory + bytes, kPoison, kGuardBytes);
    return memory;
}

void Mirror::expect_guard_intact(const Workspace& workspace) {
    std::vector<unsigned char> guard(kGuardBytes);
    device_.download(guard.data(), static_cast<unsigned char*>(workspace.memory.get()) + workspace.bytes, kGuardBytes);
    device_.synchronize();
    EXPECT_EQ(guard, std::vector<unsigned char>(kGuardBytes, kPoison))
        << "written behind " << workspace.bytes << " bytes";
}

template <typename Call>
bool Mirror::succeeds(Call call) const {
    lattn_status status = LATTN_OK;
    const auto check = [&] {
        status = call();
        ASSERT_EQ(LATTN_OK, status) << lattn_last_error();
    };
    if (new_threads_)
        std::thread(check).join();
    else
        check();
    return status == LATTN_OK;
}

template <typename Params>
void Mirror::relocate_inputs(Params& params) const {
    for (lattn_view* view : {&params.q, &params.k, &params.v}) view->data = at(view->data);
    params.decay_rate = at(params.decay_rate);
}

void Mirror::forward(lattn_forward_params params) {
    relocate_inputs(params);
    params.problem.cu_seqlens = at(params.problem.cu_seqlens);
    params.pool.states.data = at(params.pool.states.data);
    params.pool.slots = at(params.pool.slots);
    params.pool.has_initial = static_cast<const uint8_t*>(at(params.pool.has_initial));
    params.history.data = at(params.history.data);
    params.output.data = at(params.output.data);
    params.states.data = at(params.states.data);
    params.stream = device_.stream();
    if (!succeeds([&] { return lattn_forward_workspace_size(&params, &params.workspace_bytes); })) return;
    params.workspace = workspace(params.workspace_bytes);
    succeeds([&] { return lattn_forward(&params); });
}

void Mirror::backward(lattn_backward_params params) {
    relocate_inputs(params);
    params.problem.cu_seqlens = at(params.problem.cu_seqlens);
    params.history.data = at(params.history.data);
    params.grad_states.data = at(params.grad_states.data);
    for (lattn_view* view : {&params.grad_output, &params.grad_q, &params.grad_k, &params.grad_v})
        view->data = at(view->data);
    params.grad_history.data = at(params.grad_history.data);
    params.grad_decay_rate = at(params.grad_decay_rate);
    params.stream = device_.stream();
    if (!succeeds([&] { return lattn_backward_workspace_size(&params, &params.workspace_bytes); })) return;
    params.workspace = workspace(params.workspace_bytes);
    succeeds([&] { return lattn_backward(&params); });
}

void Mirror::forward(lattn_gated_norm_forward_params params) {
    for (lattn_view* view : {&params.x, &params.gate, &params.output}) view->data = at(view->data);
    params.weight = at(params.weight);
    params.stream = device_.stream();
    succeeds([&] { return lattn_gated_norm_forward(&params); });
}

void Mirror::backward(lattn_gated_norm_backward_params params) {
    for (lattn_view* view : {&params.x, &params.gate, &params.grad_output, &params.grad_x, &params.grad_gate})
        view->data = at(view->data);
    params.weight = at(params.weight);
    params.grad_weight = at(params.grad_weight);
    params.stream = device_.stream();
    if (!succeeds([&] { return lattn_gated_norm_backward_workspace_size(&params, &params.workspace_bytes); })) return;
    params.workspace = workspace(params.workspace_bytes);
    succeeds([&] { return lattn_gated_norm_backward(&params); });
}

void Mirror::activate(lattn_activation_params params, void* stream) {
    params.input = at(params.input);
    params.grad = at(params.grad);
    params.output = at(params.output);
    params.stream = stream;
    succeeds([&] { return lattn_activate(&params); });
}

void Mirror::relocate(lattn_decode_params& params) const {
    relocate_inputs(params);
    params.output.data = at(params.output.data);
    params.state_in.data = at(params.state_in.data);
    params.state_out.data = at(params.state_out.data);
    params.slots = at(params.slots);
    params.accepted = at(params.accepted);
    params.stream = device_.stream();
}

lattn_status Mirror::decode(lattn_decode_params params) {
    relocate(params);
    return lattn_decode(&params);
}

void Mirror::fetch() {
    for (Region& region : regions_) device_.download(region.host.data(), region.memory.get(), region.host.size());
    device_.synchronize();
    for (const Workspace& workspace : workspaces_) expect_guard_intact(workspace);
    for (std::size_t i = 0; i < regions_.size(); ++i) {
        const Region& region = regions_[i];
        if (region.before.empty()) continue;
        EXPECT_TRUE(std::equal(region.host.begin(), region.host.end(), region.before.begin()))
            << "input " << i << " was changed";
    }
}

} // namespace lattn::test
