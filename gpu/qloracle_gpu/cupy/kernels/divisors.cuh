// Quotients by an absmax or a scale, guessed in float32, and the integer nearest to one, exactly.
#pragma once
#include "words.cuh"

// What turns the elements of a group into quotients without an intermediate result that overflows or underflows: for
// an absmax beyond 2^±100 both are first brought nearer to 1 by a power of two.
struct Divisor {
    float absmax;   // finite and not 0, else there is no quotient
    float factor;   // a power of two
    float inverse;  // of absmax · factor
    bool usable;
};

HOST_DEVICE Divisor divisor_of(float absmax) {
    Divisor divisor = {absmax, 1.0f, 0.0f, is_nonzero_finite(absmax)};
    if (!divisor.usable) return divisor;
    u32 magnitude = magnitude_of(absmax);
    if (magnitude < word_of(0x1p-100f)) divisor.factor = 0x1p100f;
    if (magnitude > word_of(0x1p100f)) divisor.factor = 0x1p-100f;
    divisor.inverse = __fdiv_rn(1.0f, __fmul_rn(absmax, divisor.factor));
    return divisor;
}

HOST_DEVICE float quotient_of(float x, const Divisor& divisor) {
    return __fmul_rn(__fmul_rn(x, divisor.factor), divisor.inverse);
}

// A divisor of either sign: a restored absmax may lie below zero, and so may a scale that is given.
struct SignedDivisor {
    Divisor magnitude;
    u32 sign;

    HOST_DEVICE SignedDivisor(float value)
        : magnitude(divisor_of(float_of(magnitude_of(value)))), sign(word_of(value) & SIGN) {}

    // What x is to be divided by the magnitude, in place of x by the divisor.
    HOST_DEVICE float turned(float x) const { return float_of(word_of(x) ^ sign); }
};

// Whether FACTOR·x/absmax lies above k + 1/2 (1), on it (0) or below (−1): products of at most 35 bits, exact.
template <int FACTOR> HOST_DEVICE int side_of_half(float x, float absmax, int k) {
    double left = __dmul_rn(2.0 * FACTOR, x), right = __dmul_rn(2.0 * k + 1.0, absmax);
    return left > right ? 1 : left < right ? -1 : 0;
}

// The guess is off by less than 3·2^−24·MOST, and MOST is at most 2^10: a share of the distance to a half integer from
// which on it decides.
constexpr float UNDECIDED = 0x1p-12f;

// The integer nearest to the real number FACTOR·x/absmax, ties to even, at most MOST in magnitude; 0 where x is NaN or
// there is no quotient. absmax > 0.
template <int FACTOR, int MOST> HOST_DEVICE int nearest_integer(float x, const Divisor& divisor) {
    static_assert(3 * MOST <= 4096, "the guess must decide");
    if (!divisor.usable || magnitude_of(x) > INFINITY_WORD) return 0;
    float scaled = __fmul_rn(quotient_of(x, divisor), (float)FACTOR);
    scaled = fmaxf(-(float)MOST, fminf(scaled, (float)MOST));
    int floor = (int)floorf(scaled), nearest = __float2int_rn(scaled);
    float above = __fsub_rn(scaled, (float)floor);
    if (fabsf(__fsub_rn(above, 0.5f)) < UNDECIDED) {
        int side = side_of_half<FACTOR>(x, divisor.absmax, floor);
        nearest = side > 0 || (side == 0 && floor % 2 != 0) ? floor + 1 : floor;
    }
    return nearest;
}
