// Stored codes, and the value of one. Clauses: [packing.nibbles], [blockwise.dequantize].
#pragma once
#include "vectors.cuh"

// Eight codes from an even position on, packed or one a byte; 0 for what lies beyond the end.
template <int BITS> __device__ __forceinline__ void load_codes(const u8* data, i64 first, i64 size, u8 (&codes)[ITEMS]) {
    if (BITS == 8) {
        load_items(data, first, size, codes);
        return;
    }
    u8 bytes[ITEMS] = {};
    const u8* source = data + first / 2;
    if (first + ITEMS <= size && ((size_t)source & 3) == 0) {
        u32 packed = *reinterpret_cast<const u32*>(source);
        memcpy(bytes, &packed, sizeof(packed));
    } else {
        for (int k = 0; k < ITEMS / 2; ++k) {
            if (first + 2 * k < size) bytes[k] = source[k];
        }
    }
#pragma unroll
    for (int k = 0; k < ITEMS; ++k) codes[k] = k % 2 ? bytes[k / 2] & 15 : bytes[k / 2] >> 4;
}

// entry · absmax, rounded to float32; a block of zeros gives +0, whatever its codes.
HOST_DEVICE float product_of(float entry, float absmax) {
    return magnitude_of(absmax) == 0 ? 0.0f : __fmul_rn(entry, absmax);
}
