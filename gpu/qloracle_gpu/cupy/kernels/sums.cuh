// Sums in float64 in an order that does not depend on how threads run.
#pragma once
#include "vectors.cuh"

constexpr int SUMMING_WARPS = 8;  // of a CTA
constexpr int WARP_LANES = 32;
constexpr i64 SUMMED_PART = 8192;  // elements whose sum one CTA makes at a time

// All lanes of the warp must call this; all of them get the sum.
__device__ __forceinline__ double sum_of_warp(double value) {
    for (int offset = WARP_LANES / 2; offset > 0; offset /= 2) {
        value = __dadd_rn(value, __shfl_xor_sync(0xffffffffu, value, offset));
    }
    return value;
}

// All threads of a CTA of SUMMING_WARPS warps must call this; all of them get the sum.
__device__ __forceinline__ double sum_of_cta(double value, double (&of_warps)[SUMMING_WARPS]) {
    value = sum_of_warp(value);
    if ((threadIdx.x & (WARP_LANES - 1)) == 0) of_warps[threadIdx.x / WARP_LANES] = value;
    __syncthreads();
    double total = 0.0;
    for (int warp = 0; warp < SUMMING_WARPS; ++warp) total = __dadd_rn(total, of_warps[warp]);
    __syncthreads();
    return total;
}

HOST_DEVICE double square_of(double value) { return __dmul_rn(value, value); }
