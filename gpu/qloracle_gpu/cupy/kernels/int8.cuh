// Absmax INT8, exactly. Clauses: [int8.quantize], [int8.dequantize].
#pragma once
#include "nearest.cuh"

constexpr int LARGEST_INT8 = 127;
// The guess 127·q is off by less than 127·2^−22, a share of the distance to a half integer from which on it decides.
constexpr float UNDECIDED_INT8 = 0x1p-12f;

// Whether 127·x/absmax lies above k + 1/2 (1), on it (0) or below (−1): products of at most 32 bits, exact in float64.
HOST_DEVICE int side_of_half(float x, float absmax, int k) {
    double left = __dmul_rn(2.0 * LARGEST_INT8, x), right = __dmul_rn(2.0 * k + 1.0, absmax);
    return left > right ? 1 : left < right ? -1 : 0;
}

// The integer nearest to the real number 127·x/absmax, ties to even, saturated; absmax > 0.
HOST_DEVICE i8 int8_code(float x, const Divisor& divisor) {
    float scaled = __fmul_rn(quotient_of(x, divisor), (float)LARGEST_INT8);
    if (!divisor.usable || word_of(x) << 1 > INFINITY_WORD << 1) return 0;
    scaled = fmaxf(-LARGEST_INT8 - 1.0f, fminf(scaled, LARGEST_INT8 + 1.0f));
    int floor = (int)floorf(scaled), code = __float2int_rn(scaled);
    float above = __fsub_rn(scaled, (float)floor);
    if (fabsf(__fsub_rn(above, 0.5f)) < UNDECIDED_INT8) {
        int side = side_of_half(x, divisor.absmax, floor);
        code = side > 0 || (side == 0 && floor % 2 != 0) ? floor + 1 : floor;
    }
    return (i8)max(-LARGEST_INT8, min(code, LARGEST_INT8));
}

// RN_float32(code·absmax/127), the quotient real. With c = RN(1/127) in float64 the product misses the quotient by a
// few 2^−53 of it; one step of Newton's method with the exact residue makes it the nearest float64, and exact where
// the quotient is a float64 number, as every number between two of float32 and their middle is decided by 2^−33 of it.
HOST_DEVICE float int8_value(i8 code, float absmax) {
    const double inverse = 1.0 / LARGEST_INT8;
    double product = __dmul_rn((double)code, (double)absmax);
    if (magnitude_of(absmax) >= INFINITY_WORD) return __double2float_rn(product);
    double guess = __dmul_rn(product, inverse);
    double quotient = __fma_rn(__fma_rn(-(double)LARGEST_INT8, guess, product), inverse, guess);
    return quotient == 0.0 ? 0.0f : __double2float_rn(quotient);
}
