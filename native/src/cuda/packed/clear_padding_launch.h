// Clears what a call writes for the tokens that belong to no sequence of a packed batch.
#pragma once

#include "cuda/scan_call.h"

namespace lattn::cuda {

// Of the call's output, if it has one.
Status clear_padding(Device& device, const ScanCall& call);

} // namespace lattn::cuda
