// Operands of the warp matrix product for each element type, loaded from shared memory or made from fp32 registers.
//
// Rows and columns follow PTX's m16n8k16 and m16n8k8 fragments: with g = lane / 4 and t = lane % 4 an accumulator holds
// (row g, columns 2t, 2t+1) in acc[0..1] and (row g+8, the same columns) in acc[2..3].
//
// An operand has one or two parts whose sum is its value: two parts keep about twice the bits of the element type.
//   bf16: m16n8k16 on bf16. Inputs are exact in one part.
//   fp16: m16n8k8 on tf32, which holds every fp16 exactly and has the range that scores and states need.
//   fp32: m16n8k8 on tf32, every operand in two parts (three products).
//   Tf32: fp32 in memory, m16n8k8 on tf32, every operand in one part (one product).
// For k8 the k index is permuted: slot t holds k = 2t and slot t + 4 holds k = 2t + 1, in A and in B alike, so that
// neighbours in memory and in an accumulator feed one lane.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

#include "ptx/convert.cuh"
#include "ptx/cp_async.cuh"
#include "ptx/ldmatrix.cuh"
#include "ptx/mma.cuh"
#include "tile/element.cuh"

namespace lattn::cuda {

// An fp32 element whose products may round it to tf32.
struct Tf32 {
    Tf32() = default;
    __device__ explicit Tf32(float x) : value(x) {}

    float value;
};

__device__ __forceinline__ float to_float(Tf32 x) {
    return x.value;
}

template <>
__device__ __forceinline__ Tf32 from_float<Tf32>(float x) {
    return Tf32(x);
}

template <int kParts>
struct FragmentA {
    uint32_t part[kParts][4];
};

template <int kParts>
struct FragmentB {
    uint32_t part[kParts][2];
};

// Two neighbouring 8-column tiles of a B operand.
template <int kParts>
struct FragmentPairB {
    FragmentB<kParts> tile[2];
};

__device__ __forceinline__ int lane_id() {
    return threadIdx.x & 31;
}

template <typename T>
struct Operand;

template <>
struct Operand<__nv_bfloat16> {
    using Scores = __nv_bfloat16; // type of the score tile in shared memory
    static constexpr int kK = 16;
    static constexpr int kInputParts = 1;
    static constexpr int kReadParts = 1;   // of states and scores on their way to the output
    static constexpr int kUpdateParts = 2; // of the weighted values on their way to the state

    __device__ static Scores to_scores(float value) { return __float2bfloat16_rn(value); }

    // A[16 x 16] from tile[m][k].
    __device__ static FragmentA<1> load_a(const __nv_bfloat16* tile, int ld) {
        const int lane = lane_id();
        FragmentA<1> a;
        ptx::ldmatrix_x4(a.part[0], ptx::shared_address(tile + (lane % 16) * ld + (lane / 16) * 8));
        return a;
    }

    // B[16 x 16] from tile[n][k].
    __device__ static FragmentPairB<1> load_b_nk(const __nv_bfloat16* tile, int ld) {
        const int lane = lane_id();
        return pair(ldmatrix(tile + ((lane / 16) * 8 + lane % 8) * ld + ((lane / 8) % 2) * 8));
    }

    // B[16 x 16] from tile[k][n].
    __device__ static FragmentPairB<1> load_b_kn(const __nv_bfloat16* tile, int ld) {
        const int lane = lane_id();
        return pair(ldmatrix_transposed(tile + (((lane / 8) % 2) * 8 + lane % 8) * ld + (lane / 16) * 8));
    }

    // A[16 x 16] from tile[k][m], column k multiplied by weight[k], in two parts.
    __device__ static FragmentA<2> load_a_km_weighted(const __nv_bfloat16* tile, int ld, const float* weight) {
        const int lane = lane_id();
        const Matrices raw = ldmatrix_transposed(tile + ((lane / 16) * 8 + lane % 8) * ld + ((lane / 8) % 2) * 8);
        FragmentA<2> a;
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const int k = (i / 2) * 8 + (lane % 4) * 2;
            const float2 x = ptx::unpack_bf16(raw.value[i]);
            uint32_t parts[2];
            split<2>(x.x * weight[k], x.y * weight[k + 1], parts);
            a.part[0][i] = parts[0];
            a.part[1][i] = parts[1];
        }
        return a;
    }

    // B[16 x 16] from the transposed state: acc[0] and acc[1] are neighbouring 8-column tiles of X^T[16 x 16].
    template <int kParts>
    __device__ static FragmentPairB<kParts> from_transposed_accumulators(const float (*acc)[4]) {
        FragmentPairB<kParts> b;
#pragma unroll
        for (int n = 0; n < 2; ++n) {
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                uint32_t parts[kParts];
                split<kParts>(acc[half][2 * n], acc[half][2 * n + 1], parts);
#pragma unroll
                for (int p = 0; p < kParts; ++p) b.tile[n].part[p][half] = parts[p];
            }
        }
        return b;
    }

    __device__ static void multiply(float (&acc)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
        ptx::mma_m16n8k16_bf16(acc, a, b);
    }

private:
    struct Matrices {
        uint32_t value[4];
    };

    __device__ static Matrices ldmatrix(const __nv_bfloat16* row) {
        Matrices m;
        ptx::ldmatrix_x4(m.value, ptx::shared_address(row));
        return m;
    }

    __device__ static Matrices ldmatrix_transposed(const __nv_bfloat16* row) {
        Matrices m;
        ptx::ldmatrix_x4_transposed(m.value, ptx::shared_address(row));
        return m;
    }

    __device__ static FragmentPairB<1> pair(const Matrices& m) {
        return {{{{{m.value[0], m.value[1]}}}, {{{m.value[2], m.value[3]}}}}};
    }

    template <int kParts>
    __device__ static void split(float low, float high, uint32_t (&parts)[kParts]) {
        parts[0] = ptx::pack_bf16(low, high);
        if constexpr (kParts == 2) {
            const float2 rounded = ptx::unpack_bf16(parts[0]);
            parts[1] = ptx::pack_bf16(low - rounded.x, high - rounded.y);
        }
    }
};

// fp16 and fp32 on tf32.
template <typename T, int kInputParts_, int kUpdateParts_>
struct OperandTf32 {
    using Scores = float;
    static constexpr int kK = 8;
    static constexpr int kInputParts = kInputParts_;
    static constexpr int kReadParts = kInputParts_;
    static constexpr int kUpdateParts = kUpdateParts_;

    __device__ static Scores to_scores(float value) { return value; }

    // A[16 x 8] from tile[m][k]; scores are fp32 whatever T is.
    template <typename U>
    __device__ static FragmentA<kInputParts> load_a(const U* tile, int ld) {
        const U* row = tile + (lane_id() / 4) * ld + (lane_id() % 4) * 2;
        FragmentA<kInputParts> a;
        set(a, 0, to_float(row[0]));
        set(a, 1, to_float(row[8 * ld]));
        set(a, 2, to_float(row[1]));
        set(a, 3, to_float(row[8 * ld + 1]));
        return a;
    }

    // B[8 x 16] from tile[n][k].
    __device__ static FragmentPairB<kInputParts> load_b_nk(const T* tile, int ld) {
        const T* row = tile + (lane_id() / 4) * ld + (lane_id() % 4) * 2;
        FragmentPairB<kInputParts> b;
#pragma unroll
        for (int n = 0; n < 2; ++n) {
            set(b.tile[n], 0, to_float(row[n * 8 * ld]));
            set(b.tile[n], 1, to_float(row[n * 8 * ld + 1]));
        }
        return b;
    }

    // B[8 x 16] from tile[k][n].
    __device__ static FragmentPairB<kInputParts> load_b_kn(const T* tile, int ld) {
        const T* column = tile + (lane_id() % 4) * 2 * ld + lane_id() / 4;
        FragmentPairB<kInputParts> b;
#pragma unroll
        for (int n = 0; n < 2; ++n) {
            set(b.tile[n], 0, to_float(column[n * 8]));
            set(b.tile[n], 1, to_float(column[ld + n * 8]));
        }
        return b;
    }

    // A[16 x 8] from tile[k][m], column k multiplied by weight[k].
    __device__ static FragmentA<kUpdateParts> load_a_km_weighted(const T* tile, int ld, const float* weight) {
        const int k = (lane_id() % 4) * 2;
        const T* column = tile + k * ld + lane_id() / 4;
        FragmentA<kUpdateParts> a;
        set(a, 0, to_float(column[0]) * weight[k]);
        set(a, 1, to_float(column[8]) * weight[k]);
        set(a, 2, to_float(column[ld]) * weight[k + 1]);
        set(a, 3, to_float(column[ld + 8]) * weight[k + 1]);
        return a;
    }

    // B[8 x 16] from the transposed state: acc[0] is an 8-column tile of X^T[16 x 8].
    template <int kParts>
    __device__ static FragmentPairB<kParts> from_transposed_accumulators(const float (*acc)[4]) {
        FragmentPairB<kParts> b;
#pragma unroll
        for (int n = 0; n < 2; ++n) {
            set(b.tile[n], 0, acc[0][2 * n]);
            set(b.tile[n], 1, acc[0][2 * n + 1]);
        }
        return b;
    }

    __device__ static void multiply(float (&acc)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
        ptx::mma_m16n8k8_tf32(acc, a, b);
    }

private:
    template <typename Fragment>
    __device__ static void set(Fragment& fragment, int index, float value) {
        constexpr int kParts = sizeof(fragment.part) / sizeof(fragment.part[0]);
        fragment.part[0][index] = ptx::round_to_tf32(value);
        if constexpr (kParts == 2)
            fragment.part[1][index] = ptx::round_to_tf32(value - __uint_as_float(fragment.part[0][index]));
    }
};

template <>
struct Operand<__half> : OperandTf32<__half, 1, 2> {};

template <>
struct Operand<float> : OperandTf32<float, 2, 2> {};

template <>
struct Operand<Tf32> : OperandTf32<Tf32, 1, 1> {};

// acc += a b; the product of the two low parts is below fp32's own rounding and left out. Where both operands have two
// parts the products start from zero and are added to acc with a rounding addition: the matrix unit truncates when it
// accumulates, and over many steps that bias would exceed what the low parts gain.
template <typename T, int kPartsA, int kPartsB>
__device__ __forceinline__ void multiply(float (&acc)[4], const FragmentA<kPartsA>& a, const FragmentB<kPartsB>& b) {
    if constexpr (kPartsA == 2 && kPartsB == 2) {
        float sum[4] = {};
        Operand<T>::multiply(sum, a.part[1], b.part[0]);
        Operand<T>::multiply(sum, a.part[0], b.part[1]);
        Operand<T>::multiply(sum, a.part[0], b.part[0]);
#pragma unroll
        for (int i = 0; i < 4; ++i) acc[i] += sum[i];
    } else {
        if constexpr (kPartsA == 2) Operand<T>::multiply(acc, a.part[1], b.part[0]);
        if constexpr (kPartsB == 2) Operand<T>::multiply(acc, a.part[0], b.part[1]);
        Operand<T>::multiply(acc, a.part[0], b.part[0]);
    }
}

} // namespace lattn::cuda
