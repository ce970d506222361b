// lattn_compare NAME=LIBRARY... CASE... [OPTION]...: times the forward calls of several builds of the library on the
// first GPU, in one process and in turn, since clocks and cards differ by more than versions of a kernel do. Prints a
// line for each case: the median microseconds of a call by each library, and whether its results have the bits of the
// first one's.
//
//   forward:B,H,N                           q, k, v [B, N, H, 128] of bf16
//   varlen:COUNT,H,T,LENGTHS,STATES         COUNT sequences of T tokens in all
//     LENGTHS  uniform, random or skewed: half of what is left each, as in the benchmark
//     STATES   states: read from a pool of fp32 and written; fresh: only written; none
//
//   --calls 10     in a sample, one after the other; as many come before it, so that the GPU waits for no one
//   --samples 21
//   --checks 1     comparisons of results; what depends on timing shows in many only
//   --pause 30     milliseconds before a sample, with the GPU idle; 0 measures under load, where power bounds clocks
#include <cuda.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <limits>
#include <memory>
#include <numeric>
#include <random>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "common/platform.h"
#include "gpu/device.h"
#include "gpu/dynamic_library.h"
#include "lightning_attn.h"

namespace lattn::tools {
namespace {

constexpr int64_t kDim = 128;
constexpr int64_t kElementBytes = 2;

struct Options {
    int calls = 10;
    int samples = 21;
    int checks = 1;
    int pause_ms = 30;
};

class Library {
public:
    Library(std::string name, const std::string& path) : name_(std::move(name)) {
        const test::DynamicLibrary library(path, path);
        library.bind("lattn_abi_version", abi_version_);
        library.bind("lattn_forward", forward_);
        library.bind("lattn_forward_workspace_size", workspace_size_);
        library.bind("lattn_last_error", last_error_);
        if (abi_version_() != LATTN_ABI_VERSION)
            throw std::runtime_error(path + " has ABI " + std::to_string(abi_version_()) + ", not " +
                                     std::to_string(LATTN_ABI_VERSION));
    }

    const std::string& name() const { return name_; }

    uint64_t workspace_bytes(const lattn_forward_params& params) const {
        uint64_t bytes = 0;
        check(workspace_size_(&params, &bytes));
        return bytes;
    }

    void forward(const lattn_forward_params& params) const { check(forward_(&params)); }

private:
    void check(lattn_status status) const {
        if (status != LATTN_OK) throw std::runtime_error(name_ + ": " + last_error_());
    }

    std::string name_;
    decltype(&lattn_abi_version) abi_version_ = nullptr;
    decltype(&lattn_forward) forward_ = nullptr;
    decltype(&lattn_forward_workspace_size) workspace_size_ = nullptr;
    decltype(&lattn_last_error) last_error_ = nullptr;
};

class Memory {
public:
    explicit Memory(std::size_t bytes)
        : bytes_(bytes), data_(test::cuda_device().allocate(std::max<std::size_t>(bytes, 1))) {}
    ~Memory() { test::cuda_device().release(data_); }
    Memory(const Memory&) = delete;
    Memory& operator=(const Memory&) = delete;

    void* data() const { return data_; }
    std::size_t bytes() const { return bytes_; }

    template <typename T>
    void upload(const std::vector<T>& values) {
        test::cuda_device().upload(data_, values.data(), values.size() * sizeof(T));
        test::cuda_device().synchronize();
    }

    std::vector<char> download() const {
        std::vector<char> values(bytes_);
        test::cuda_device().download(values.data(), data_, bytes_);
        test::cuda_device().synchronize();
        return values;
    }

private:
    std::size_t bytes_;
    void* data_;
};

// Of what is queued on the device's stream.
class Stopwatch {
public:
    Stopwatch() : stream_(static_cast<CUstream>(test::cuda_device().stream())) {
        const test::DynamicLibrary driver(kCudaDriver, "the NVIDIA driver");
        decltype(&cuEventCreate) create = nullptr;
        driver.bind("cuEventCreate", create);
        driver.bind("cuEventRecord", record_);
        driver.bind("cuEventElapsedTime", elapsed_time_);
        for (CUevent* event : {&started_, &ended_}) check(create(event, CU_EVENT_DEFAULT), "cuEventCreate");
    }

    // How long what `work` queues takes, from the end of what was queued before.
    template <typename Work>
    double milliseconds(Work work) const {
        check(record_(started_, stream_), "cuEventRecord");
        work();
        check(record_(ended_, stream_), "cuEventRecord");
        test::cuda_device().synchronize();
        float elapsed = 0.0f;
        check(elapsed_time_(&elapsed, started_, ended_), "cuEventElapsedTime");
        return elapsed;
    }

private:
    static void check(CUresult result, const char* call) {
        if (result != CUDA_SUCCESS) throw std::runtime_error(std::string(call) + " failed: " + std::to_string(result));
    }

    CUstream stream_;
    decltype(&cuEventRecord) record_ = nullptr;
    decltype(&cuEventElapsedTime) elapsed_time_ = nullptr;
    CUevent started_ = nullptr;
    CUevent ended_ = nullptr;
};

std::vector<std::string> split(const std::string& text) {
    std::vector<std::string> parts(1);
    for (const char c : text) {
        if (c == ',')
            parts.emplace_back();
        else
            parts.back() += c;
    }
    return parts;
}

// From `least` to 2^31 - 1.
int64_t number(const std::string& text, int64_t least) {
    constexpr int64_t kMost = std::numeric_limits<int32_t>::max();
    std::size_t end = 0;
    int64_t value = 0;
    try {
        value = std::stoll(text, &end);
    } catch (const std::exception&) {
        end = 0;
    }
    if (end != text.size() || end == 0 || value < least || value > kMost)
        throw std::runtime_error("'" + text + "' is not a number from " + std::to_string(least) + " to " +
                                 std::to_string(kMost));
    return value;
}

// In [-1, 1).
float random_value(std::minstd_rand& random) {
    return static_cast<float>(random() % 65536) / 32768.0f - 1.0f;
}

// Of bf16.
std::vector<uint16_t> random_elements(int64_t count, unsigned seed) {
    std::minstd_rand random(seed);
    std::vector<uint16_t> elements(static_cast<std::size_t>(count));
    for (uint16_t& element : elements) {
        const float value = random_value(random);
        uint32_t bits = 0;
        std::memcpy(&bits, &value, sizeof(bits));
        element = static_cast<uint16_t>(bits >> 16);
    }
    return elements;
}

std::vector<int32_t> offsets_of(const std::string& lengths, int64_t tokens, int64_t sequences) {
    std::vector<int32_t> offsets(static_cast<std::size_t>(sequences) + 1);
    std::minstd_rand random(static_cast<unsigned>(sequences));
    for (std::size_t i = 1; i + 1 < offsets.size(); ++i) {
        if (lengths == "uniform")
            offsets[i] = static_cast<int32_t>(tokens * static_cast<int64_t>(i) / sequences);
        else if (lengths == "random")
            offsets[i] = static_cast<int32_t>(static_cast<int64_t>(random()) % (tokens + 1));
        else if (lengths == "skewed")
            offsets[i] = offsets[i - 1] + (static_cast<int32_t>(tokens) - offsets[i - 1]) / 2;
        else
            throw std::runtime_error("'" + lengths + "' is none of uniform, random, skewed");
    }
    offsets.back() = static_cast<int32_t>(tokens);
    std::sort(offsets.begin(), offsets.end());
    return offsets;
}

// A forward call and its tensors, [tokens, heads, columns].
class Case {
public:
    explicit Case(const std::string& text) {
        const std::size_t colon = text.find(':');
        const std::string kind = text.substr(0, colon);
        const std::vector<std::string> parts = split(text.substr(colon + 1));
        if (kind == "forward" && parts.size() == 3)
            set_tensors(number(parts[0], 1), number(parts[1], 1), number(parts[2], 1));
        else if (kind == "varlen" && parts.size() == 5)
            set_packed(number(parts[0], 1), number(parts[1], 1), number(parts[2], 1), parts[3], parts[4]);
        else
            throw std::runtime_error("'" + text + "' is neither forward:B,H,N nor varlen:COUNT,H,T,LENGTHS,STATES");
    }

    void use(const std::vector<Library>& libraries) {
        uint64_t bytes = 0;
        for (const Library& library : libraries) bytes = std::max(bytes, library.workspace_bytes(params_));
        workspace_ = std::make_unique<Memory>(bytes);
        params_.workspace = bytes > 0 ? workspace_->data() : nullptr;
        params_.workspace_bytes = bytes;
    }

    void call(const Library& library) const { library.forward(params_); }

    // What one call writes.
    std::vector<char> results(const Library& library) {
        test::cuda_device().fill(params_.output.data, 0xff, output_->bytes());
        if (pool_ != nullptr) pool_->upload(states_);
        call(library);
        std::vector<char> written = output_->download();
        if (pool_ != nullptr) {
            const std::vector<char> states = pool_->download();
            written.insert(written.end(), states.begin(), states.end());
        }
        return written;
    }

private:
    Memory& keep(std::size_t bytes) { return *kept_.emplace_back(std::make_unique<Memory>(bytes)); }

    lattn_view view_of(const Memory& memory, int64_t heads, int64_t tokens) const {
        return {memory.data(), tokens * heads * kDim, kDim, heads * kDim};
    }

    void set_tensors(int64_t batch, int64_t heads, int64_t tokens) {
        const int64_t count = batch * heads * tokens * kDim;
        const auto bytes = static_cast<std::size_t>(count * kElementBytes);
        params_.struct_size = sizeof(params_);
        unsigned seed = 1;
        for (lattn_view* input : {&params_.q, &params_.k, &params_.v}) {
            Memory& memory = keep(bytes);
            memory.upload(random_elements(count, seed++));
            *input = view_of(memory, heads, tokens);
        }
        output_ = &keep(bytes);
        params_.output = view_of(*output_, heads, tokens);
        std::vector<float> rates;
        for (int64_t head = 1; head <= heads; ++head)
            rates.push_back(std::exp2(-8.0f * static_cast<float>(head) / static_cast<float>(heads)));
        Memory& rate = keep(rates.size() * sizeof(float));
        rate.upload(rates);
        params_.decay_rate = rate.data();
        params_.stream = test::cuda_device().stream();

        lattn_problem& problem = params_.problem;
        problem.batch = batch;
        problem.heads_qk = problem.heads_v = heads;
        problem.tokens = tokens;
        problem.head_dim_qk = problem.head_dim_v = kDim;
        problem.block_size = 4096;
        problem.state_count = 1;
        problem.scale = 1.0 / std::sqrt(static_cast<double>(kDim));
        problem.dtype = LATTN_BFLOAT16;
        problem.device_type = LATTN_CUDA;
    }

    void set_packed(int64_t sequences, int64_t heads, int64_t tokens, const std::string& lengths,
                    const std::string& states) {
        set_tensors(1, heads, tokens);
        const std::vector<int32_t> offsets = offsets_of(lengths, tokens, sequences);
        Memory& memory = keep(offsets.size() * sizeof(int32_t));
        memory.upload(offsets);
        params_.problem.batch = sequences;
        params_.problem.cu_seqlens = memory.data();
        params_.problem.cu_seqlens_dtype = LATTN_INT32;
        if (states == "none") return;
        if (states != "states" && states != "fresh")
            throw std::runtime_error("'" + states + "' is none of states, fresh, none");
        std::minstd_rand random(9);
        states_.resize(static_cast<std::size_t>(sequences * heads * kDim * kDim));
        for (float& state : states_) state = random_value(random);
        pool_ = &keep(states_.size() * sizeof(float));
        const std::vector<uint8_t> flags(static_cast<std::size_t>(sequences), states == "states" ? 1 : 0);
        Memory& has_initial = keep(flags.size());
        has_initial.upload(flags);
        lattn_pool& pool = params_.pool;
        pool.states = {pool_->data(), heads * kDim * kDim, kDim * kDim, kDim, 1};
        pool.slot_count = sequences;
        pool.has_initial = static_cast<const uint8_t*>(has_initial.data());
        pool.state_dtype = LATTN_FLOAT32;
    }

    std::vector<std::unique_ptr<Memory>> kept_;
    std::unique_ptr<Memory> workspace_;
    Memory* output_ = nullptr;
    Memory* pool_ = nullptr;
    std::vector<float> states_; // of the pool before a call
    lattn_forward_params params_ = {};
};

// Of a call.
double microseconds(const Options& options, const Stopwatch& stopwatch, const Case& c, const Library& library) {
    const auto calls = [&] {
        for (int i = 0; i < options.calls; ++i) c.call(library);
    };
    test::cuda_device().synchronize();
    std::this_thread::sleep_for(std::chrono::milliseconds(options.pause_ms));
    calls();
    return 1000.0 * stopwatch.milliseconds(calls) / options.calls;
}

double median(std::vector<double> values) {
    std::sort(values.begin(), values.end());
    return values[values.size() / 2];
}

void compare(const Options& options, const std::vector<Library>& libraries, const std::string& text) {
    Case c(text);
    c.use(libraries);
    const std::vector<char> first = c.results(libraries.front());
    std::vector<int> others(libraries.size()); // results of other bits
    for (int i = 0; i < options.checks; ++i) {
        for (std::size_t library = 0; library < libraries.size(); ++library)
            others[library] += c.results(libraries[library]) != first;
    }
    const Stopwatch stopwatch;
    std::vector<std::vector<double>> samples(libraries.size());
    std::vector<std::size_t> order(libraries.size());
    std::iota(order.begin(), order.end(), 0);
    std::mt19937 random(3);
    for (int i = 0; i < options.samples; ++i) {
        std::shuffle(order.begin(), order.end(), random);
        for (const std::size_t library : order)
            samples[library].push_back(microseconds(options, stopwatch, c, libraries[library]));
    }
    std::printf("%-36s", text.c_str());
    for (std::size_t i = 0; i < libraries.size(); ++i) {
        std::printf("  %s %.1f us", libraries[i].name().c_str(), median(samples[i]));
        if (others[i] > 0) std::printf(" (other bits in %d of %d)", others[i], options.checks);
    }
    std::printf("%s\n", std::count(others.begin(), others.end(), 0) == std::ssize(others) ? "  same bits" : "");
    std::fflush(stdout);
}

void run(const std::vector<std::string>& arguments) {
    Options options;
    std::vector<Library> libraries;
    std::vector<std::string> cases;
    for (std::size_t i = 0; i < arguments.size(); ++i) {
        const std::string& argument = arguments[i];
        const std::size_t equals = argument.find('=');
        const auto value = [&](int64_t least) {
            if (i + 1 == arguments.size()) throw std::runtime_error(argument + " needs a number");
            return static_cast<int>(number(arguments[++i], least));
        };
        if (argument == "--calls")
            options.calls = value(1);
        else if (argument == "--samples")
            options.samples = value(1);
        else if (argument == "--checks")
            options.checks = value(1);
        else if (argument == "--pause")
            options.pause_ms = value(0);
        else if (equals != std::string::npos)
            libraries.emplace_back(argument.substr(0, equals), argument.substr(equals + 1));
        else
            cases.push_back(argument);
    }
    if (libraries.empty() || cases.empty())
        throw std::runtime_error(
            "usage: lattn_compare NAME=LIBRARY... CASE... [--calls N] [--samples N] [--checks N] [--pause MS]");
    for (const std::string& text : cases) compare(options, libraries, text);
}

} // namespace
} // namespace lattn::tools

int main(int argc, char** argv) {
    try {
        lattn::tools::run(std::vector<std::string>(argv + 1, argv + argc));
        return 0;
    } catch (const std::exception& e) {
        std::fprintf(stderr, "lattn_compare: %s\n", e.what());
        return 1;
    }
}
