// The CUDA backend where no GPU is needed: its dispatch table, its refusals.
#include <gtest/gtest.h>

#include <map>
#include <set>
#include <string>

#include "lightning_attn.h"

namespace {

bool built_with_cuda() {
    return lattn_kernel_count() > 0;
}

lattn_support_query query(lattn_operation operation, int64_t d, int64_t e, lattn_dtype dtype = LATTN_BFLOAT16) {
    lattn_support_query query{};
    query.struct_size = sizeof(query);
    query.operation = operation;
    query.dtype = dtype;
    query.state_dtype = LATTN_FLOAT32;
    query.device_type = LATTN_CUDA;
    query.head_dim_qk = d;
    query.head_dim_v = e;
    return query;
}

std::string refusal(const lattn_support_query& query) {
    EXPECT_EQ(LATTN_NOT_SUPPORTED, lattn_describe(&query, nullptr, 0));
    return lattn_last_error();
}

bool contains(const std::string& text, const std::string& part) {
    return text.find(part) != std::string::npos;
}

TEST(CudaTable, NamesAreUniqueAndEveryModuleHasAnImage) {
    if (!built_with_cuda()) GTEST_SKIP() << "this build has no CUDA kernels";
    std::set<std::string> names;
    for (int32_t index = 0; index < lattn_kernel_count(); ++index) {
        lattn_kernel_info info{};
        info.struct_size = sizeof(info);
        ASSERT_EQ(LATTN_OK, lattn_kernel(index, &info));
        EXPECT_TRUE(names.insert(info.name).second) << info.name;
        EXPECT_GE(info.threads, 32);
        // Kernels for sm_90a alone may have what that GPU gives a block.
        const bool hopper = contains(info.module, "_sm90a");
        EXPECT_LE(info.dynamic_smem_bytes, (hopper ? 227 : 99) * 1024) << info.name;
        const void* image = nullptr;
        uint64_t bytes = 0;
        ASSERT_EQ(LATTN_OK, lattn_module_image(info.module, &image, &bytes)) << info.module;
        EXPECT_NE(nullptr, image);
        EXPECT_GT(bytes, 1000u) << info.module;
    }
}

TEST(CudaTable, UnknownRowsAndModulesAreErrors) {
    lattn_kernel_info info{};
    info.struct_size = sizeof(info);
    EXPECT_EQ(LATTN_INVALID_ARGUMENT, lattn_kernel(-1, &info));
    EXPECT_EQ(LATTN_INVALID_ARGUMENT, lattn_kernel(lattn_kernel_count(), &info));
    EXPECT_EQ(LATTN_INVALID_ARGUMENT, lattn_kernel(0, nullptr));
    const void* image = nullptr;
    uint64_t bytes = 0;
    EXPECT_NE(LATTN_OK, lattn_module_image("no_such_module", &image, &bytes));
}

TEST(CudaTable, EveryFp32ScanHasItsCounterpartInTf32) {
    if (!built_with_cuda()) GTEST_SKIP() << "this build has no CUDA kernels";
    std::map<std::string, lattn_kernel_info> scans;
    for (int32_t index = 0; index < lattn_kernel_count(); ++index) {
        lattn_kernel_info info{};
        info.struct_size = sizeof(info);
        ASSERT_EQ(LATTN_OK, lattn_kernel(index, &info));
        scans[info.name] = info;
    }
    for (const std::string dim : {"64", "128", "192", "256"}) {
        const auto fp32 = scans.find("lattn_scan_fp32_d" + dim);
        const auto tf32 = scans.find("lattn_scan_tf32_d" + dim);
        ASSERT_NE(scans.end(), fp32);
        ASSERT_NE(scans.end(), tf32);
        EXPECT_STREQ("scan_tf32", tf32->second.module);
        EXPECT_EQ(fp32->second.threads, tf32->second.threads);
        EXPECT_EQ(fp32->second.dynamic_smem_bytes, tf32->second.dynamic_smem_bytes);
    }
}

// Describe needs a GPU to answer for CUDA.
TEST(CudaDescribe, Tf32IsForFloat32AndForTheScansOnly) {
    const auto name_of = [](lattn_operation operation, lattn_dtype dtype, int32_t allow_tf32) -> std::string {
        lattn_support_query asked = query(operation, 72, 200, dtype);
        asked.allow_tf32 = allow_tf32;
        char name[64] = "";
        return lattn_describe(&asked, name, sizeof(name)) == LATTN_OK ? name : "";
    };
    if (name_of(LATTN_OP_FORWARD, LATTN_FLOAT32, 0).empty()) GTEST_SKIP() << lattn_last_error();
    EXPECT_EQ("lattn_scan_fp32_d128", name_of(LATTN_OP_FORWARD, LATTN_FLOAT32, 0));
    EXPECT_EQ("lattn_scan_tf32_d128", name_of(LATTN_OP_FORWARD, LATTN_FLOAT32, 1));
    EXPECT_EQ("lattn_scan_fp32_d256", name_of(LATTN_OP_BACKWARD, LATTN_FLOAT32, 0));
    EXPECT_EQ("lattn_scan_tf32_d256", name_of(LATTN_OP_BACKWARD, LATTN_FLOAT32, 1));
    for (const lattn_dtype dtype : {LATTN_FLOAT16, LATTN_BFLOAT16})
        EXPECT_EQ(name_of(LATTN_OP_FORWARD, dtype, 0), name_of(LATTN_OP_FORWARD, dtype, 1));
    EXPECT_EQ(name_of(LATTN_OP_DECODE, LATTN_FLOAT32, 0), name_of(LATTN_OP_DECODE, LATTN_FLOAT32, 1));
}

TEST(CudaRefusal, NamesTheHeadSizeAndWhatIsAllowed) {
    if (!built_with_cuda()) GTEST_SKIP() << "this build has no CUDA kernels";
    for (const int64_t size : {int64_t{8}, int64_t{20}, int64_t{264}}) {
        const std::string expected = " = " + std::to_string(size) +
                                     " is not supported on CUDA: it must be a multiple of 8 "
                                     "from 16 to 256";
        EXPECT_TRUE(contains(refusal(query(LATTN_OP_FORWARD, size, 64)), "head_dim_qk" + expected));
        EXPECT_TRUE(contains(refusal(query(LATTN_OP_BACKWARD, 64, size)), "head_dim_v" + expected));
        EXPECT_TRUE(contains(refusal(query(LATTN_OP_DECODE, size, 64)), "head_dim_qk" + expected));
    }
}

TEST(CudaRefusal, NamesTheElementType) {
    if (!built_with_cuda()) GTEST_SKIP() << "this build has no CUDA kernels";
    EXPECT_TRUE(contains(refusal(query(LATTN_OP_FORWARD, 64, 64, LATTN_FLOAT64)), "dtype = float64"));
    EXPECT_TRUE(contains(refusal(query(LATTN_OP_DECODE, 64, 64, LATTN_FLOAT64)), "dtype = float64"));
}

TEST(CudaRefusal, WithoutADriverOrKernelsTheMessageSaysSo) {
    const lattn_support_query valid = query(LATTN_OP_FORWARD, 64, 64);
    char name[64] = "";
    const lattn_status status = lattn_describe(&valid, name, sizeof(name));
    if (status == LATTN_OK) {
        EXPECT_STREQ("lattn_scan_bf16_d64", name);
        return;
    }
    EXPECT_EQ(LATTN_NOT_SUPPORTED, status);
    EXPECT_TRUE(contains(lattn_last_error(), built_with_cuda() ? "NVIDIA driver" : "no CUDA kernels"))
        << lattn_last_error();
    EXPECT_EQ(LATTN_NOT_SUPPORTED, lattn_synchronize(0));
}

} // namespace
