// Teams: 2^k neighbouring lanes of a warp that share a block, and the largest magnitude among them.
#pragma once
#include "vectors.cuh"

constexpr int LANES = 32;
constexpr u32 ALL_LANES = 0xffffffffu;

// The magnitudes of float32 words are ordered as integers, infinity and NaN above all numbers: one maximum finds both
// the absmax and whether the block is poisoned.
HOST_DEVICE u32 largest_of(const float (&values)[ITEMS]) {
    u32 largest = 0;
#pragma unroll
    for (int k = 0; k < ITEMS; ++k) largest = max(largest, magnitude_of(values[k]));
    return largest;
}

// All lanes of the warp must call this.
__device__ __forceinline__ u32 largest_in_team(u32 largest, int team) {
    for (int offset = team / 2; offset > 0; offset /= 2) {
        largest = max(largest, __shfl_xor_sync(ALL_LANES, largest, offset));
    }
    return largest;
}

// The absmax that a largest magnitude stands for: NaN for a block that holds NaN or ±inf.
HOST_DEVICE float absmax_of(u32 largest) { return float_of(largest >= INFINITY_WORD ? NAN_WORD : largest); }
