// The CPU backend. Arguments have passed the checks of common/problem.h.
#pragma once

#include "common/status.h"

namespace lattn::cpu {

Status forward(const lattn_forward_params& params);
Status backward(const lattn_backward_params& params);

// Checks the slots too, before anything is written.
Status decode(const lattn_decode_params& params);

Status gated_norm_forward(const lattn_gated_norm_forward_params& params);
Status gated_norm_backward(const lattn_gated_norm_backward_params& params);
Status activate(const lattn_activation_params& params);

// The instruction set in use: "baseline", "avx2" or "avx512". The widest one that both this build and this processor
// have, unless the environment variable LATTN_CPU_ISA names a narrower one when the library is first used.
const char* isa_name();

} // namespace lattn::cpu
