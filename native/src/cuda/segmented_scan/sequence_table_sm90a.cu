#include "segmented_scan/sequence_table.cuh"

extern "C" __global__ void __launch_bounds__(lattn::cuda::kSequenceTableThreads)
    lattn_sequence_table(const __grid_constant__ lattn::cuda::SequenceTableParams params) {
    lattn::cuda::SequenceTable::run(params);
}
