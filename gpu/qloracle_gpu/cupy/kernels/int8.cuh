// Absmax INT8, exactly. Clauses: [int8.quantize], [int8.dequantize].
#pragma once
#include "divisors.cuh"

constexpr int LARGEST_INT8 = 127;
// The code of the real number 127·x/absmax, saturated; absmax of either sign.
HOST_DEVICE i8 int8_code(float x, const SignedDivisor& divisor) {
    int nearest = nearest_integer<LARGEST_INT8, LARGEST_INT8 + 1>(divisor.turned(x), divisor.magnitude);
    return (i8)max(-LARGEST_INT8, min(nearest, LARGEST_INT8));
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
