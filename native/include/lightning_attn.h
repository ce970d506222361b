/*
 * lightning_attn: linear attention with per-head exponential decay (lightning attention), CPU and CUDA.
 *
 * The whole C ABI of the library. Plain C, no dependency on libtorch or cudart.
 *
 *   S_t = exp(-s) S_{t-1} + k_t (x) v_t        S_0 = history, zeros when absent
 *   o_t = scale * S_t^T q_t                    s >= 0: decay rate of the head, nats per token
 *
 * Shape letters: B batch, Hk query/key heads, Hv value heads (Hk divides Hv), N tokens, D query/key head size,
 * E value head size, NB = ceil(N / block_size) state blocks, T tokens of a packed batch, Td draft tokens.
 *
 * Conventions
 *  - Every function that can fail returns a lattn_status; lattn_last_error() then holds the message of this thread.
 *  - Parameter structs start with struct_size, which the caller sets to sizeof(struct); unused fields are zero.
 *  - Strides are in elements. The last axis of a lattn_view has unit stride; other strides may have any sign.
 *  - "State type" is fp64 for fp64 tensors and fp32 for every other type. Rates and states are of the state type.
 *  - The library never prints, exits, synchronises with a device or returns memory that the caller must free.
 *  - device_type LATTN_CPU: pointers are host pointers, stream is ignored, the call has finished when it returns.
 *    device_type LATTN_CUDA: pointers are device pointers of device_index, work is queued on stream (a CUstream;
 *    NULL is the legacy default stream) and the call returns at once.
 *  - Thread-safe: no call changes global state that another call can see.
 */
#ifndef LIGHTNING_ATTN_H
#define LIGHTNING_ATTN_H

#include <stdint.h>

#if defined(_WIN32)
#if defined(LATTN_BUILD)
#define LATTN_API __declspec(dllexport)
#else
#define LATTN_API __declspec(dllimport)
#endif
#else
#define LATTN_API __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* Changes with every incompatible change of this header. */
#define LATTN_ABI_VERSION 6u

typedef int32_t lattn_status;
enum {
    LATTN_OK = 0,
    LATTN_INVALID_ARGUMENT = 1, /* the caller's values are wrong; the message names them */
    LATTN_NOT_SUPPORTED = 2,    /* valid, but this build or device lacks it; the message says what is needed */
    LATTN_CUDA_ERROR = 3,       /* the CUDA driver reported an error */
    LATTN_OUT_OF_MEMORY = 4,
    LATTN_INTERNAL_ERROR = 5
};

/* Element types, numbered as torch.ScalarType. */
typedef int32_t lattn_dtype;
enum {
    LATTN_INT32 = 3,
    LATTN_INT64 = 4,
    LATTN_FLOAT16 = 5,
    LATTN_FLOAT32 = 6,
    LATTN_FLOAT64 = 7,
    LATTN_BFLOAT16 = 15
};

/* Device types, numbered as torch.DeviceType. */
typedef int32_t lattn_device_type;
enum { LATTN_CPU = 0, LATTN_CUDA = 1 };

/* Which of the CUDA kernels run the scans of a forward or backward call: the general ones, or those for Hopper. They
 * agree within rounding; the choice is for tests and benchmarks. */
typedef int32_t lattn_cuda_path;
enum {
    LATTN_CUDA_PATH_AUTOMATIC = 0,
    LATTN_CUDA_PATH_GENERAL = 1, /* mma.sync, compute capability 8.0 and higher */
    LATTN_CUDA_PATH_HOPPER = 2   /* wgmma, compute capability 9.0; an error where it does not take the problem */
};

typedef int32_t lattn_operation;
enum { LATTN_OP_FORWARD = 0, LATTN_OP_BACKWARD = 1, LATTN_OP_DECODE = 2 };

/* The most tokens of a row that one lattn_decode call takes. */
#define LATTN_MAX_DECODE_TOKENS 16

/* A strided [B, H, N, X] tensor; X is contiguous. data may be NULL only where a field says so, or if it is empty.
 * Of a packed batch it is [1, H, T, X] and stride_b is ignored. */
typedef struct lattn_view {
    void* data;
    int64_t stride_b;
    int64_t stride_h;
    int64_t stride_n;
} lattn_view;

/* A strided [B, Hv, D, E] state of any strides. data NULL: absent. */
typedef struct lattn_state_view {
    void* data;
    int64_t stride_b;
    int64_t stride_h;
    int64_t stride_d;
    int64_t stride_e;
} lattn_state_view;

/* A strided [B, Hv, NB + 1, D, E] sequence of states (or [B, Hv, 1, D, E], see state_count). data NULL: absent. */
typedef struct lattn_states_view {
    void* data;
    int64_t stride_b;
    int64_t stride_h;
    int64_t stride_block;
    int64_t stride_d;
    int64_t stride_e;
} lattn_states_view;

/* What forward and backward have in common: sizes, types, placement.
 *
 * cu_seqlens makes it a packed batch: sequence b has tokens cu_seqlens[b] to cu_seqlens[b + 1] - 1 of tensors of
 * `tokens` tokens in all. The offsets do not decrease and are from 0 to `tokens`: anything else is an error on the CPU;
 * on CUDA, where they are in device memory and the host does not look at them, each is clamped to that range and a
 * sequence that ends before it begins is empty. Tokens that belong to no sequence are padding: what the call writes for
 * them is zeros. state_count is 1, and there are no histories and no states but those of a pool. */
typedef struct lattn_problem {
    int64_t batch;      /* B >= 0, sequences */
    int64_t heads_qk;   /* Hk >= 1 */
    int64_t heads_v;    /* Hv >= 1, a multiple of Hk */
    int64_t tokens;     /* N >= 0 of every sequence; T >= 0, those of all sequences, with cu_seqlens */
    int64_t head_dim_qk; /* D >= 1; CUDA: a multiple of 8 from 16 to 256 */
    int64_t head_dim_v;  /* E >= 1; CUDA: a multiple of 8 from 16 to 256 */
    int64_t block_size;  /* tokens per returned state block: a positive multiple of 64 */
    /* Entries of the state sequence: NB + 1 (entry b is the state before block b, the last one is the final state)
       or 1 (the final state alone). */
    int64_t state_count;
    double scale;
    lattn_dtype dtype; /* of q, k, v, output and their gradients */
    lattn_device_type device_type;
    int32_t device_index; /* CUDA ordinal; ignored on the CPU */
    lattn_cuda_path cuda_path; /* ignored on the CPU */
    /* 1: the products of fp32 tensors on CUDA may round their factors to tf32; 0: they keep fp32's accuracy, as the
       gradient of the decay rate always does. Without effect on other types and on the CPU. */
    int32_t allow_tf32;
    lattn_dtype cu_seqlens_dtype; /* LATTN_INT32 or LATTN_INT64; ignored when cu_seqlens is NULL */
    const void* cu_seqlens;       /* [B + 1] contiguous, on the device, or NULL: every sequence has `tokens` tokens */
} lattn_problem;

/* A pool that holds the states of a packed batch's sequences, read before and written after them. A sequence whose slot
 * is -1 is padding: its tokens are, and no state is touched. Any other slot outside [0, slot_count) is
 * LATTN_INVALID_ARGUMENT on the CPU (nothing is written) and behaves like -1 on CUDA. No two sequences may have the
 * same slot, which is checked on the CPU alone. An empty sequence leaves its slot as it is, or zeros it if has_initial
 * says that it starts from zeros. */
typedef struct lattn_pool {
    lattn_state_view states;    /* [slot_count, Hv, D, E]; stride_b is the stride between slots; data NULL: no pool */
    int64_t slot_count;
    const void* slots;          /* [B] contiguous, on the device; NULL: slot b of sequence b */
    const uint8_t* has_initial; /* [B] on the device, 0: the sequence starts from zeros; NULL: none does */
    lattn_dtype state_dtype;    /* fp32, bf16 or fp16; fp64 exactly when dtype is fp64. Rounded once */
    lattn_dtype slot_dtype;     /* LATTN_INT32 or LATTN_INT64; ignored when slots is NULL */
} lattn_pool;

typedef struct lattn_forward_params {
    uint64_t struct_size;
    lattn_problem problem;
    lattn_view q;                /* [B, Hk, N, D] */
    lattn_view k;                /* [B, Hk, N, D] */
    lattn_view v;                /* [B, Hv, N, E] */
    const void* decay_rate;      /* [Hv], contiguous, state type, >= 0, nats per token */
    lattn_state_view history;    /* [B, Hv, D, E], state type; data NULL: zeros */
    lattn_view output;           /* [B, Hv, N, E], written */
    lattn_states_view states;    /* [B, Hv, state_count, D, E], state type, written; data NULL: not wanted */
    lattn_pool pool;             /* packed batches only, in place of history and states */
    void* workspace;             /* of lattn_forward_workspace_size() bytes, 256-byte aligned; NULL when that is 0 */
    uint64_t workspace_bytes;
    void* stream;                /* CUstream */
} lattn_forward_params;

typedef struct lattn_backward_params {
    uint64_t struct_size;
    lattn_problem problem;
    lattn_view q;                     /* [B, Hk, N, D] */
    lattn_view k;                     /* [B, Hk, N, D] */
    lattn_view v;                     /* [B, Hv, N, E] */
    const void* decay_rate;           /* [Hv], contiguous, state type */
    lattn_state_view history;         /* [B, Hv, D, E], state type; data NULL: zeros */
    lattn_view grad_output;           /* [B, Hv, N, E]; data NULL: zeros */
    lattn_states_view grad_states;    /* [B, Hv, state_count, D, E], state type; data NULL: zeros */
    lattn_view grad_q;                /* [B, Hk, N, D], written (summed over a head's group); data NULL: not wanted */
    lattn_view grad_k;                /* [B, Hk, N, D], written (summed over a head's group); data NULL: not wanted */
    lattn_view grad_v;                /* [B, Hv, N, E], written; data NULL: not wanted */
    lattn_state_view grad_history;    /* [B, Hv, D, E], state type, written; data NULL: not wanted */
    void* grad_decay_rate;            /* [Hv], state type, written (summed over B); NULL: not wanted */
    void* workspace;                  /* of lattn_backward_workspace_size() bytes, 256-byte aligned */
    uint64_t workspace_bytes;
    void* stream;
} lattn_backward_params;

/* Td tokens per row, one after the other: S <- exp(-s) S + k (x) v, o = S^T q; products accumulated in the state type, S
   rounded once, after the last token. Every token's arithmetic is the same whatever Td is.
   Row b reads state_in[slot[b]] and writes state_out[slot[b]], slot[b] = b where slots is NULL. A row with slot -1
   writes zeros to output and touches no state. Any other slot outside [0, slot_count) is LATTN_INVALID_ARGUMENT on
   the CPU (nothing is written) and behaves like -1 on CUDA. state_in and state_out may be the same memory.
   Row b takes only its first accepted[b] tokens where accepted is given; the output of the others is zeros. A number
   outside [0, Td] is LATTN_INVALID_ARGUMENT on the CPU (nothing is written) and clamped on CUDA. */
typedef struct lattn_decode_params {
    uint64_t struct_size;
    int64_t batch;       /* B >= 0 */
    int64_t heads_qk;    /* Hk */
    int64_t heads_v;     /* Hv, a multiple of Hk */
    int64_t head_dim_qk; /* D */
    int64_t head_dim_v;  /* E */
    int64_t slot_count;  /* states in state_in and in state_out */
    double scale;
    lattn_dtype dtype;       /* of q, k, v, output */
    lattn_dtype state_dtype; /* fp32, bf16 or fp16; fp64 exactly when dtype is fp64 */
    lattn_dtype slot_dtype;  /* LATTN_INT32 or LATTN_INT64; ignored when slots is NULL */
    lattn_device_type device_type;
    int32_t device_index;
    int32_t tokens;              /* Td, 1 to LATTN_MAX_DECODE_TOKENS */
    lattn_dtype accepted_dtype;  /* LATTN_INT32 or LATTN_INT64; ignored when accepted is NULL */
    int32_t reserved;            /* 0 */
    lattn_view q;                /* [B, Hk, Td, D]; not read without output */
    lattn_view k;                /* [B, Hk, Td, D] */
    lattn_view v;                /* [B, Hv, Td, E] */
    lattn_view output;           /* [B, Hv, Td, E], written; data NULL: not wanted */
    const void* decay_rate;      /* [Hv], contiguous; fp64 when dtype is fp64, else fp32 */
    lattn_state_view state_in;   /* [slot_count, Hv, D, E]; stride_b is the stride between slots */
    lattn_state_view state_out;  /* [slot_count, Hv, D, E], written; data NULL: not wanted */
    const void* slots;           /* [B] contiguous, or NULL */
    const void* accepted;        /* [B] contiguous, or NULL: all tokens */
    void* stream;
} lattn_decode_params;

/* Element-wise functions. */
typedef int32_t lattn_activation;
enum {
    LATTN_IDENTITY = 0,
    LATTN_SILU = 1,   /* x sigmoid(x) */
    LATTN_SIGMOID = 2 /* 1 / (1 + exp(-x)) */
};

/* output = activation(input) for `count` contiguous elements, or with the gradient of that, grad * activation'(input);
 * in fp32 (fp64 for fp64), rounded once. The output may be the same memory as an input; otherwise they must not overlap. */
typedef struct lattn_activation_params {
    uint64_t struct_size;
    int64_t count; /* >= 0 */
    lattn_activation activation;
    lattn_dtype dtype; /* of all */
    lattn_device_type device_type;
    int32_t device_index;
    const void* input;
    const void* grad; /* of activation(input); NULL: the output is that, not a gradient */
    void* output;     /* written */
    void* stream;
} lattn_activation_params;

/* What a layer does with the operator's output x before its last projection: RMSNorm in G groups of the H E channels,
 * times a gate. With channel c = h E + e and L = H E / G channels in a group,
 *
 *   r      = 1 / sqrt(mean of x_c^2 over the group + eps)        group c / L
 *   y_c    = activation(gate_c) (r x_c) weight_c
 *
 * Computed in the state type and rounded once. Every tensor has strides of its own, so x may lie heads first and y
 * tokens first, [B, N, H E]. A row's results depend on that row alone. */
typedef struct lattn_gated_norm {
    int64_t batch;    /* B >= 0 */
    int64_t heads;    /* H >= 1 */
    int64_t tokens;   /* N >= 0 */
    int64_t head_dim; /* E >= 1 */
    int64_t groups;   /* G >= 1, a divisor of H E */
    double eps;       /* finite, >= 0 */
    lattn_activation activation;
    lattn_dtype dtype; /* of all tensors */
    lattn_device_type device_type;
    int32_t device_index;
} lattn_gated_norm;

typedef struct lattn_gated_norm_forward_params {
    uint64_t struct_size;
    lattn_gated_norm norm;
    lattn_view x;       /* [B, H, N, E] */
    lattn_view gate;    /* [B, H, N, E] */
    const void* weight; /* [H E] contiguous */
    lattn_view output;  /* [B, H, N, E], written */
    void* stream;
} lattn_gated_norm_forward_params;

typedef struct lattn_gated_norm_backward_params {
    uint64_t struct_size;
    lattn_gated_norm norm;
    lattn_view x;           /* [B, H, N, E] */
    lattn_view gate;        /* [B, H, N, E] */
    const void* weight;     /* [H E] contiguous */
    lattn_view grad_output; /* [B, H, N, E] */
    lattn_view grad_x;      /* [B, H, N, E], written; data NULL: not wanted */
    lattn_view grad_gate;   /* [B, H, N, E], written; data NULL: not wanted */
    void* grad_weight;      /* [H E] contiguous, written (summed over B and N in a fixed order); NULL: not wanted */
    void* workspace;        /* of lattn_gated_norm_backward_workspace_size() bytes, 256-byte aligned; NULL when 0 */
    uint64_t workspace_bytes;
    void* stream;
} lattn_gated_norm_backward_params;

/* What lattn_describe tells about the kernel that a problem would run. */
typedef struct lattn_support_query {
    uint64_t struct_size;
    lattn_operation operation;
    lattn_dtype dtype;
    lattn_dtype state_dtype; /* LATTN_OP_DECODE only */
    lattn_device_type device_type;
    int32_t device_index;
    lattn_cuda_path cuda_path; /* LATTN_OP_FORWARD and LATTN_OP_BACKWARD */
    int32_t allow_tf32;        /* that of lattn_problem; without effect on LATTN_OP_DECODE */
    int32_t reserved;          /* 0 */
    int64_t head_dim_qk;
    int64_t head_dim_v;
} lattn_support_query;

/* One row of the CUDA dispatch table. Pointers are to static strings. */
typedef struct lattn_kernel_info {
    uint64_t struct_size;
    const char* name;            /* the extern "C" name in the fatbin */
    const char* module;          /* the fatbin that holds it */
    int32_t threads;             /* per block */
    int32_t dynamic_smem_bytes;  /* per block */
} lattn_kernel_info;

/* LATTN_ABI_VERSION of the library. */
LATTN_API uint32_t lattn_abi_version(void);

/* sizeof of a struct of this header, by its name ("lattn_forward_params"); 0 for a name it does not know. */
LATTN_API uint64_t lattn_struct_size(const char* struct_name);

/* "version=0.1.0;compiler=...;cuda=12.4;architectures=80-real,...;cpu=avx512;openmp=..." ; cuda=none without CUDA. */
LATTN_API const char* lattn_build_info(void);

/* The message of the last failed call of this thread; "" if there was none. Valid until this thread's next call. */
LATTN_API const char* lattn_last_error(void);

/* LATTN_OK and the kernel's name in buffer (cut to buffer_bytes, always terminated), or why there is none. */
LATTN_API lattn_status lattn_describe(const lattn_support_query* query, char* buffer, uint64_t buffer_bytes);

/* The CUDA dispatch table: its rows (0 without CUDA), and row `index` of it. */
LATTN_API int32_t lattn_kernel_count(void);
LATTN_API lattn_status lattn_kernel(int32_t index, lattn_kernel_info* info);

/* The embedded fatbin of this name (as in lattn_kernel_info.module), to be checked without a GPU. */
LATTN_API lattn_status lattn_module_image(const char* module, const void** image, uint64_t* bytes);

/* Device memory that the call needs, from the sizes and from which pointers are set (their targets are not read). */
LATTN_API lattn_status lattn_forward_workspace_size(const lattn_forward_params* params, uint64_t* bytes);
LATTN_API lattn_status lattn_backward_workspace_size(const lattn_backward_params* params, uint64_t* bytes);

LATTN_API lattn_status lattn_forward(const lattn_forward_params* params);
LATTN_API lattn_status lattn_backward(const lattn_backward_params* params);
LATTN_API lattn_status lattn_decode(const lattn_decode_params* params);

LATTN_API lattn_status lattn_gated_norm_backward_workspace_size(const lattn_gated_norm_backward_params* params,
                                                                uint64_t* bytes);
LATTN_API lattn_status lattn_gated_norm_forward(const lattn_gated_norm_forward_params* params);
LATTN_API lattn_status lattn_gated_norm_backward(const lattn_gated_norm_backward_params* params);
LATTN_API lattn_status lattn_activate(const lattn_activation_params* params);

/* A second stream for work that does not depend on what is queued on `stream` next. Fork: *side has what `stream` has so
 * far before it. Join: `stream` goes on once `side` has done its work; a fork needs one, by any thread. Every `stream`
 * has side streams of its own for each thread, as many as that forks at a time; they are kept for its next forks. While
 * `stream` is being captured into a graph, *side is `stream` itself. */
LATTN_API lattn_status lattn_fork_stream(int32_t device_index, void* stream, void** side);
LATTN_API lattn_status lattn_join_stream(int32_t device_index, void* stream, void* side);

/* How many multiprocessors a CUDA device has: what an operator does not occupy is left to work on a side stream. */
LATTN_API lattn_status lattn_multiprocessor_count(int32_t device_index, int32_t* count);

/* Waits for all work of a CUDA device and reports its asynchronous errors. For tests; no operator calls it. */
LATTN_API lattn_status lattn_synchronize(int32_t device_index);

#ifdef __cplusplus
}
#endif

#endif /* LIGHTNING_ATTN_H */
