// The mean of the absmax of blocks, exact and then rounded once, and what is left of them. Clauses:
// [double_quant.offset], [double_quant.quantize].
#include "words.cuh"

constexpr int FIELDS = 256;  // exponent fields of float32; no finite number has the last one: it counts them
constexpr int LIMBS = 12;    // of 32 bits: 254 binades, 24 bits, a sign and 2^63 numbers need 342

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

// An integer in two's complement, the lowest limb first.
struct Wide {
    u32 limbs[LIMBS];
};

HOST_DEVICE void add_shifted(Wide& total, i64 term, int shift) {
    u64 carry = 0;
    for (int k = 0; k < LIMBS; ++k) {
        int low = 32 * k - shift;  // the bit of the term that comes to the lowest bit of this limb
        i64 part = low >= 64 ? (term < 0 ? -1 : 0) : low >= 0 ? term >> low : low > -32 ? (i64)((u64)term << -low) : 0;
        u64 sum = (u64)total.limbs[k] + (u32)part + carry;
        total.limbs[k] = (u32)sum;
        carry = sum >> 32;
    }
}

HOST_DEVICE void negate(Wide& total) {
    u64 carry = 1;
    for (int k = 0; k < LIMBS; ++k) {
        carry += (u32)~total.limbs[k];
        total.limbs[k] = (u32)carry;
        carry >>= 32;
    }
}

// Divide in place, the highest bit first; return the remainder. The count is below 2^63.
HOST_DEVICE u64 divide(Wide& total, u64 count) {
    u64 remainder = 0;
    for (int bit = 32 * LIMBS - 1; bit >= 0; --bit) {
        u32 mask = 1u << (bit & 31);
        u32& limb = total.limbs[bit / 32];
        remainder = remainder << 1 | ((limb & mask) != 0 ? 1 : 0);
        limb &= ~mask;
        if (remainder >= count) {
            remainder -= count;
            limb |= mask;
        }
    }
    return remainder;
}

HOST_DEVICE bool bit_of(const Wide& number, int bit) { return (number.limbs[bit / 32] >> (bit & 31) & 1) != 0; }

// The word of RN_float32((quotient + remainder/count) · 2^−149), a magnitude.
HOST_DEVICE u32 rounded_magnitude(const Wide& quotient, u64 remainder, u64 count) {
    int length = 32 * LIMBS;
    while (length > 0 && !bit_of(quotient, length - 1)) --length;
    int dropped = length > 24 ? length - 24 : 0;
    u32 kept = 0;
    for (int bit = dropped + 23; bit >= dropped; --bit) kept = kept << 1 | (bit_of(quotient, bit) ? 1 : 0);
    bool above, tie;  // of the half: what was dropped of the quotient, and behind it the remainder
    if (dropped == 0) {
        above = remainder > count - remainder;
        tie = remainder == count - remainder;
    } else {
        bool more = remainder != 0;
        for (int bit = 0; bit < dropped - 1; ++bit) more = more || bit_of(quotient, bit);
        above = bit_of(quotient, dropped - 1) && more;
        tie = bit_of(quotient, dropped - 1) && !more;
    }
    return ((u32)dropped << 23) + kept + (above || (tie && (kept & 1)) ? 1 : 0);
}

extern "C" __global__ void finish_mean(const i64* sums, float* offset) {
    if (threadIdx.x != 0 || blockIdx.x != 0) return;
    u64 count = (u64)sums[FIELDS - 1];
    if (count == 0) {
        *offset = 0.0f;
        return;
    }
    Wide total = {};
    for (int field = 0; field < FIELDS - 1; ++field) add_shifted(total, sums[field], field > 1 ? field - 1 : 0);
    bool negative = bit_of(total, 32 * LIMBS - 1);
    if (negative) negate(total);
    u64 remainder = divide(total, count);
    u32 magnitude = rounded_magnitude(total, remainder, count);
    *offset = float_of(magnitude | (negative ? SIGN : 0));
}

// residual = fl32(absmax − offset)
extern "C" __global__ void residuals(const float* absmax, const float* offset, i64 size, float* out) {
    i64 stride = (i64)gridDim.x * blockDim.x;
    for (i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; i < size; i += stride) {
        out[i] = __fsub_rn(absmax[i], *offset);
    }
}
