// Integer names, bit patterns of floats, and arithmetic whose rounding is written out. Needs no header.
#pragma once

#define HOST_DEVICE __host__ __device__ __forceinline__

typedef signed char i8;
typedef unsigned char u8;
typedef unsigned short u16;
typedef int i32;
typedef unsigned int u32;
typedef long long i64;
typedef unsigned long long u64;

constexpr u32 SIGN = 0x80000000u;
constexpr u32 INFINITY_WORD = 0x7f800000u;
constexpr u32 NAN_WORD = 0x7fc00000u;

HOST_DEVICE u32 word_of(float value) { return __float_as_uint(value); }
HOST_DEVICE float float_of(u32 word) { return __uint_as_float(word); }
HOST_DEVICE u32 magnitude_of(float value) { return word_of(value) & ~SIGN; }
HOST_DEVICE bool is_nonzero_finite(float value) { return magnitude_of(value) - 1u < INFINITY_WORD - 1u; }

// The low `count` bits, for a count of 0 to 64.
HOST_DEVICE u64 low_bits(int count) { return count >= 64 ? ~0ull : (1ull << count) - 1; }

// Groups of elements: a flat block, a row (a block as long as the row) or the whole tensor; or a column.
HOST_DEVICE i64 ceil_div(i64 size, i64 part) { return (size + part - 1) / part; }
