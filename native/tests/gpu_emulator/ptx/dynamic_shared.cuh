// Emulates ptx/dynamic_shared.cuh.
#pragma once

#include "gpu_emulator/instructions.h"

#define LATTN_DYNAMIC_SHARED(name) char* const name = lattn::emulator::dynamic_shared()
