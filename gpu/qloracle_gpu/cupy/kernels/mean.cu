// The mean of the absmax of blocks, exact and then rounded once, and what is left of them. Clauses:
// [double_quant.offset], [double_quant.quantize].
#include "wide.cuh"

constexpr int FIELDS = 256;  // exponent fields of float32; no finite number has the last one: it counts them
constexpr int LIMBS = 12;    // of 32 bits: 254 binades, 24 bits, a sign, 2^63 numbers and a bit below need 343

// Add up the significands of every exponent. Integers: the order of the additions is no matter.
extern "C" __global__ void sum_significands(const float* absmax, i64 size, i64* sums) {
    __shared__ i64 bins[FIELDS];
    for (int k = threadIdx.x; k < FIELDS; k += blockDim.x) bins[k] = 0;
    __syncthreads();
    i64 stride = (i64)gridDim.x * blockDim.x;
    for (i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; i < size; i += stride) {
        u32 word = word_of(absmax[i]), field = word >> 23 & 0xff;
        if (field == FIELDS - 1) continue;
        i64 significand = (i64)((word & 0x7fffffu) | (field != 0 ? 0x800000u : 0));
        atomicAdd(reinterpret_cast<u64*>(&bins[field]), (u64)(word & SIGN ? -significand : significand));
        atomicAdd(reinterpret_cast<u64*>(&bins[FIELDS - 1]), 1ull);
    }
    __syncthreads();
    for (int k = threadIdx.x; k < FIELDS; k += blockDim.x) {
        if (bins[k] != 0) atomicAdd(reinterpret_cast<u64*>(&sums[k]), (u64)bins[k]);
    }
}

extern "C" __global__ void finish_mean(const i64* sums, float* offset) {
    if (threadIdx.x != 0 || blockIdx.x != 0) return;
    u64 count = (u64)sums[FIELDS - 1];
    if (count == 0) {
        *offset = 0.0f;
        return;
    }
    Wide<LIMBS> total = {};  // of halves of 2^−149
    for (int field = 0; field < FIELDS - 1; ++field) add_shifted(total, sums[field], field > 1 ? field : 1);
    bool negative = bit_of(total, 32 * LIMBS - 1);
    if (negative) negate(total);
    u64 remainder = divide(total, count);
    u32 magnitude = rounded_magnitude(total, 1, remainder != 0);
    *offset = float_of(magnitude | (negative ? SIGN : 0));
}

// residual = fl32(absmax − offset)
extern "C" __global__ void residuals(const float* absmax, const float* offset, i64 size, float* out) {
    i64 stride = (i64)gridDim.x * blockDim.x;
    for (i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; i < size; i += stride) {
        out[i] = __fsub_rn(absmax[i], *offset);
    }
}
