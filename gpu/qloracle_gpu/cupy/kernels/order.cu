// Order statistics of groups, and numbers between two others, rounded once. Clauses: [observers.percentile],
// [observers.moving].
//
// With weight = N/D and D = divisor · 2^below, (1 − weight)·a + weight·b = ((D − N)·a + N·b)/D: integers, for every
// float32 number is one times 2^−149. The host passes D − N and N as limbs.
#include "keys.cuh"
#include "vectors.cuh"
#include "wide.cuh"

constexpr int SUM_LIMBS = 44;     // WEIGHT_LIMBS, and 278 bits of a number
constexpr int WEIGHT_LIMBS = 34;  // of either weight

HOST_DEVICE void add_weighted(Wide<SUM_LIMBS>& total, const u32* weight, float value) {
    u32 magnitude = magnitude_of(value), field = magnitude >> 23;
    int shift = field > 1 ? (int)field - 1 : 0;
    u64 factor = (u64)((magnitude & 0x7fffffu) | (field != 0 ? 0x800000u : 0)) << (shift & 31);
    add_product(total, weight, WEIGHT_LIMBS, (u32)factor, shift / 32);
    add_product(total, weight, WEIGHT_LIMBS, (u32)(factor >> 32), shift / 32 + 1);
}

// RN_float32 of the number between; NaN where one of both is not finite.
HOST_DEVICE float between(float first, float second, const u32* weights, i32 divisor, i32 below) {
    if (magnitude_of(first) >= INFINITY_WORD || magnitude_of(second) >= INFINITY_WORD) return float_of(NAN_WORD);
    u32 sign = word_of(first) & SIGN;
    Wide<SUM_LIMBS> total = {}, other = {};
    add_weighted(total, weights, first);
    add_weighted(other, weights + WEIGHT_LIMBS, second);
    if ((word_of(second) & SIGN) != sign) negate(other);
    add(total, other);
    bool negative = bit_of(total, 32 * SUM_LIMBS - 1);
    if (negative) negate(total);
    bool zero = true;
    for (int k = 0; k < SUM_LIMBS; ++k) zero = zero && total.limbs[k] == 0;
    u64 remainder = divide(total, (u64)divisor);
    u32 word = rounded_magnitude(total, below, remainder != 0);
    return zero ? 0.0f : float_of(word | (negative ? sign ^ SIGN : sign));
}

// Rows of a matrix, or with `transposed` its columns, as rows of keys.
template <class F> __device__ __forceinline__ void keys_of(
    const typename F::Item* x, i64 rows, i64 columns, i32 transposed, i32* keys
) {
    i64 size = rows * columns, stride = (i64)gridDim.x * blockDim.x;
    for (i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; i < size; i += stride) {
        i64 source = transposed ? i % rows * columns + i / rows : i;
        keys[i] = key_of(F::value(x[source]));
    }
}

extern "C" __global__ void keys_of_float32(const float* x, i64 rows, i64 columns, i32 transposed, i32* keys) {
    keys_of<Float32>(x, rows, columns, transposed, keys);
}
extern "C" __global__ void keys_of_float16(const u16* x, i64 rows, i64 columns, i32 transposed, i32* keys) {
    keys_of<Float16>(x, rows, columns, transposed, keys);
}
extern "C" __global__ void keys_of_bfloat16(const u16* x, i64 rows, i64 columns, i32 transposed, i32* keys) {
    keys_of<Bfloat16>(x, rows, columns, transposed, keys);
}

// One number a row of sorted keys, between those at two neighbouring places; what is not finite lies at the ends.
extern "C" __global__ void percentiles(
    const i32* keys, i64 rows, i64 columns, i64 place, i64 next, const u32* weights, i32 divisor, i32 below, float* out
) {
    i64 stride = (i64)gridDim.x * blockDim.x;
    for (i64 row = (i64)blockIdx.x * blockDim.x + threadIdx.x; row < rows; row += stride) {
        const i32* sorted = keys + row * columns;
        u32 ends = max(magnitude_of(value_of_key(sorted[0])), magnitude_of(value_of_key(sorted[columns - 1])));
        float found = between(value_of_key(sorted[place]), value_of_key(sorted[next]), weights, divisor, below);
        out[row] = ends >= INFINITY_WORD ? float_of(NAN_WORD) : found;
    }
}

extern "C" __global__ void interpolate(
    const float* first, const float* second, i64 size, const u32* weights, i32 divisor, i32 below, float* out
) {
    i64 stride = (i64)gridDim.x * blockDim.x;
    for (i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; i < size; i += stride) {
        out[i] = between(first[i], second[i], weights, divisor, below);
    }
}
