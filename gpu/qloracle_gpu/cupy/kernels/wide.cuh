// Integers of many bits in two's complement, the lowest limb first, and the float32 number nearest to one.
#pragma once
#include "words.cuh"

template <int LIMBS> struct Wide {
    u32 limbs[LIMBS];
};

template <int LIMBS> HOST_DEVICE void add_shifted(Wide<LIMBS>& total, i64 term, int shift) {
    u64 carry = 0;
    for (int k = 0; k < LIMBS; ++k) {
        int low = 32 * k - shift;  // the bit of the term that comes to the lowest bit of this limb
        i64 part = low >= 64 ? (term < 0 ? -1 : 0) : low >= 0 ? term >> low : low > -32 ? (i64)((u64)term << -low) : 0;
        u64 sum = (u64)total.limbs[k] + (u32)part + carry;
        total.limbs[k] = (u32)sum;
        carry = sum >> 32;
    }
}

// Add weight · factor · 2^(32·offset) for a weight of `count` limbs.
template <int LIMBS> HOST_DEVICE void add_product(
    Wide<LIMBS>& total, const u32* weight, int count, u32 factor, int offset
) {
    u64 carry = 0;
    for (int k = 0; k + offset < LIMBS; ++k) {
        u64 product = k < count ? (u64)weight[k] * factor : 0;
        carry += (u64)total.limbs[k + offset] + (u32)product;
        total.limbs[k + offset] = (u32)carry;
        carry = (carry >> 32) + (product >> 32);
    }
}

template <int LIMBS> HOST_DEVICE void negate(Wide<LIMBS>& total) {
    u64 carry = 1;
    for (int k = 0; k < LIMBS; ++k) {
        carry += (u32)~total.limbs[k];
        total.limbs[k] = (u32)carry;
        carry >>= 32;
    }
}

template <int LIMBS> HOST_DEVICE void add(Wide<LIMBS>& total, const Wide<LIMBS>& other) {
    u64 carry = 0;
    for (int k = 0; k < LIMBS; ++k) {
        carry += (u64)total.limbs[k] + other.limbs[k];
        total.limbs[k] = (u32)carry;
        carry >>= 32;
    }
}

template <int LIMBS> HOST_DEVICE bool bit_of(const Wide<LIMBS>& number, int bit) {
    return (number.limbs[bit / 32] >> (bit & 31) & 1) != 0;
}

// Divide in place, the highest bit first; return the remainder. The divisor is below 2^63.
template <int LIMBS> HOST_DEVICE u64 divide(Wide<LIMBS>& total, u64 divisor) {
    u64 remainder = 0;
    for (int bit = 32 * LIMBS - 1; bit >= 0; --bit) {
        u32 mask = 1u << (bit & 31);
        u32& limb = total.limbs[bit / 32];
        remainder = remainder << 1 | ((limb & mask) != 0 ? 1 : 0);
        limb &= ~mask;
        if (remainder >= divisor) {
            remainder -= divisor;
            limb |= mask;
        }
    }
    return remainder;
}

// The word of RN_float32((number + something below 1, if `more`) · 2^(−149 − below)), a magnitude; below ≥ 1.
template <int LIMBS> HOST_DEVICE u32 rounded_magnitude(const Wide<LIMBS>& number, int below, bool more) {
    int length = 32 * LIMBS;
    while (length > 0 && !bit_of(number, length - 1)) --length;
    int dropped = max(length - 24, below);
    u32 kept = 0;
    for (int bit = dropped + 23; bit >= dropped; --bit) {
        kept = kept << 1 | (bit < 32 * LIMBS && bit_of(number, bit) ? 1 : 0);
    }
    for (int bit = 0; bit < dropped - 1; ++bit) more = more || bit_of(number, bit);
    bool up = bit_of(number, dropped - 1) && (more || (kept & 1) != 0);
    return ((u32)(dropped - below) << 23) + kept + (up ? 1 : 0);
}
