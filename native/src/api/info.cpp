// The exported functions that tell about the library.
#include <cstdio>
#include <cstring>
#include <string>

#include "common/dtype.h"
#include "common/platform.h"
#include "common/problem.h"
#include "cpu/cpu.h"
#include "cuda/cuda.h"

#ifndef LATTN_VERSION
#error "the build defines LATTN_VERSION"
#endif
#ifndef LATTN_CUDA_VERSION
#define LATTN_CUDA_VERSION "none"
#endif
#ifndef LATTN_CUDA_ARCHITECTURES
#define LATTN_CUDA_ARCHITECTURES "none"
#endif

#if defined(_OPENMP)
#define LATTN_OPENMP "yes"
#else
#define LATTN_OPENMP "no"
#endif

namespace lattn {
namespace {

std::string make_build_info() {
    return std::string("version=" LATTN_VERSION ";compiler=" LATTN_COMPILER ";cuda=" LATTN_CUDA_VERSION
                       ";architectures=" LATTN_CUDA_ARCHITECTURES ";cpu=") +
           cpu::isa_name() + ";openmp=" LATTN_OPENMP;
}

const char* cpu_kernel_name(lattn_operation operation) {
    switch (operation) {
        case LATTN_OP_FORWARD:
            return "cpu_forward";
        case LATTN_OP_BACKWARD:
            return "cpu_backward";
        default:
            return "cpu_decode";
    }
}

Status describe(const lattn_support_query* query, char* buffer, uint64_t buffer_bytes) {
    if (query == nullptr) return error(LATTN_INVALID_ARGUMENT, "query is NULL");
    if (query->struct_size != sizeof(*query))
        return error(LATTN_INVALID_ARGUMENT, "lattn_support_query.struct_size = %llu, this library expects %llu",
                     static_cast<unsigned long long>(query->struct_size),
                     static_cast<unsigned long long>(sizeof(*query)));
    if (query->operation < LATTN_OP_FORWARD || query->operation > LATTN_OP_DECODE)
        return error(LATTN_INVALID_ARGUMENT, "operation = %d must be 0 (forward), 1 (backward) or 2 (decode)",
                     query->operation);
    if (!is_floating(query->dtype))
        return error(LATTN_INVALID_ARGUMENT, "dtype = %d (%s) must be float16, bfloat16, float32 or float64",
                     query->dtype, dtype_name(query->dtype));
    LATTN_RETURN_IF_ERROR(check_allow_tf32(query->allow_tf32));
    const char* name = cpu_kernel_name(query->operation);
    if (query->device_type == LATTN_CUDA) LATTN_RETURN_IF_ERROR(cuda::describe(*query, name));
    if (buffer != nullptr && buffer_bytes > 0) std::snprintf(buffer, buffer_bytes, "%s", name);
    return ok();
}

} // namespace
} // namespace lattn

extern "C" {

uint32_t lattn_abi_version(void) {
    return LATTN_ABI_VERSION;
}

uint64_t lattn_struct_size(const char* struct_name) {
    struct Entry {
        const char* name;
        uint64_t size;
    };
#define LATTN_STRUCT(type) \
    { #type, sizeof(type) }
    static constexpr Entry entries[] = {
        LATTN_STRUCT(lattn_view),
        LATTN_STRUCT(lattn_state_view),
        LATTN_STRUCT(lattn_states_view),
        LATTN_STRUCT(lattn_problem),
        LATTN_STRUCT(lattn_forward_params),
        LATTN_STRUCT(lattn_backward_params),
        LATTN_STRUCT(lattn_decode_params),
        LATTN_STRUCT(lattn_support_query),
        LATTN_STRUCT(lattn_kernel_info),
        LATTN_STRUCT(lattn_pool),
        LATTN_STRUCT(lattn_gated_norm),
        LATTN_STRUCT(lattn_gated_norm_forward_params),
        LATTN_STRUCT(lattn_gated_norm_backward_params),
        LATTN_STRUCT(lattn_activation_params),
    };
#undef LATTN_STRUCT
    for (const Entry& entry : entries)
        if (struct_name != nullptr && std::strcmp(entry.name, struct_name) == 0) return entry.size;
    return 0;
}

const char* lattn_build_info(void) {
    static const std::string info = lattn::make_build_info();
    return info.c_str();
}

const char* lattn_last_error(void) {
    return lattn::last_error();
}

lattn_status lattn_describe(const lattn_support_query* query, char* buffer, uint64_t buffer_bytes) {
    return lattn::describe(query, buffer, buffer_bytes).code;
}

int32_t lattn_kernel_count(void) {
    return lattn::cuda::kernel_count();
}

lattn_status lattn_kernel(int32_t index, lattn_kernel_info* info) {
    if (info == nullptr || info->struct_size != sizeof(*info))
        return lattn::error(LATTN_INVALID_ARGUMENT, "info is NULL or info.struct_size is not %llu",
                            static_cast<unsigned long long>(sizeof(*info)))
            .code;
    if (index < 0 || index >= lattn::cuda::kernel_count())
        return lattn::error(LATTN_INVALID_ARGUMENT, "index = %d must be from 0 to %d", index,
                            lattn::cuda::kernel_count() - 1)
            .code;
    lattn::cuda::kernel_info(index, *info);
    return LATTN_OK;
}

lattn_status lattn_module_image(const char* module, const void** image, uint64_t* bytes) {
    if (module == nullptr || image == nullptr || bytes == nullptr)
        return lattn::error(LATTN_INVALID_ARGUMENT, "module, image and bytes must not be NULL").code;
    return lattn::cuda::module_image(module, *image, *bytes).code;
}

lattn_status lattn_synchronize(int32_t device_index) {
    return lattn::cuda::synchronize(device_index).code;
}

} // extern "C"
