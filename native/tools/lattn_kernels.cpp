// lattn_kernels <folder>: prints "build <lattn_build_info>" and the dispatch table, a line "kernel <name> <module>
// <threads> <dynamic_smem_bytes>" each, and writes every embedded fatbin to <folder>/<module>.fatbin. Needs no GPU.
#include <cstdio>
#include <set>
#include <string>

#include "lightning_attn.h"

namespace {

bool write_file(const std::string& path, const void* data, uint64_t bytes) {
    std::FILE* file = std::fopen(path.c_str(), "wb");
    if (file == nullptr) return false;
    const bool written = std::fwrite(data, 1, bytes, file) == bytes;
    return (std::fclose(file) == 0) && written;
}

int fail(const std::string& what) {
    std::fprintf(stderr, "lattn_kernels: %s: %s\n", what.c_str(), lattn_last_error());
    return 1;
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 2) return fail("usage: lattn_kernels <folder>");
    std::printf("build %s\n", lattn_build_info());
    std::set<std::string> modules;
    for (int32_t index = 0; index < lattn_kernel_count(); ++index) {
        lattn_kernel_info info{};
        info.struct_size = sizeof(info);
        if (lattn_kernel(index, &info) != LATTN_OK) return fail("lattn_kernel");
        std::printf("kernel %s %s %d %d\n", info.name, info.module, info.threads, info.dynamic_smem_bytes);
        modules.insert(info.module);
    }
    for (const std::string& module : modules) {
        const void* image = nullptr;
        uint64_t bytes = 0;
        if (lattn_module_image(module.c_str(), &image, &bytes) != LATTN_OK) return fail(module);
        const std::string path = std::string(argv[1]) + "/" + module + ".fatbin";
        if (!write_file(path, image, bytes)) return fail("cannot write " + path);
    }
    return 0;
}
