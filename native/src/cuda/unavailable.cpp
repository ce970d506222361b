// The CUDA backend of a build without a CUDA compiler.
#include "cuda/cuda.h"

#if !LATTN_WITH_CUDA

namespace lattn::cuda {
namespace {

Status unavailable() {
    return error(LATTN_NOT_SUPPORTED,
                 "this build of lightning_attn has no CUDA kernels: build it on a machine with nvcc "
                 "(scripts/install-cuda-compiler.sh) or move the tensors to the CPU");
}

} // namespace

Status forward_workspace_size(const lattn_forward_params&, uint64_t&) {
    return unavailable();
}
Status backward_workspace_size(const lattn_backward_params&, uint64_t&) {
    return unavailable();
}
Status forward(const lattn_forward_params&) {
    return unavailable();
}
Status backward(const lattn_backward_params&) {
    return unavailable();
}
Status decode(const lattn_decode_params&) {
    return unavailable();
}
Status gated_norm_backward_workspace_size(const lattn_gated_norm_backward_params&, uint64_t&) {
    return unavailable();
}
Status gated_norm_forward(const lattn_gated_norm_forward_params&) {
    return unavailable();
}
Status gated_norm_backward(const lattn_gated_norm_backward_params&) {
    return unavailable();
}
Status activate(const lattn_activation_params&) {
    return unavailable();
}
Status fork_stream(int, void*, void*&) {
    return unavailable();
}
Status join_stream(int, void*, void*) {
    return unavailable();
}
Status multiprocessor_count(int, int&) {
    return unavailable();
}
Status describe(const lattn_support_query&, const char*&) {
    return unavailable();
}
Status synchronize(int) {
    return unavailable();
}
int kernel_count() {
    return 0;
}
void kernel_info(int, lattn_kernel_info&) {}
Status module_image(const char*, const void*&, uint64_t&) {
    return unavailable();
}

} // namespace lattn::cuda

#endif
