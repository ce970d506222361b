// The shared memory that a launch gives to a block: declares `name`, its address, aligned to 16 bytes. A macro, since
// the compiler makes other code where a function returns it.
#pragma once

#define LATTN_DYNAMIC_SHARED(name) extern __shared__ uint4 name[]
