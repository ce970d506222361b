// Clears what a call writes for the tokens that belong to no sequence of a packed batch.
#pragma once

#include "cuda/packed/clear_padding_params.h"
#include "cuda/scan_call.h"

namespace lattn::cuda {

// For the call's output; data NULL if it has none.
ClearPaddingParams clear_padding_params(const ScanCall& call);

Status clear_padding(Device& device, const ScanCall& call);

} // namespace lattn::cuda
