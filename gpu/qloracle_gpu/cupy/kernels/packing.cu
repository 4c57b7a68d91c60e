// Two 4-bit codes in a byte, the first in the high nibble. Clause: [packing.nibbles].
#include "vectors.cuh"

extern "C" __global__ void pack_4bit(const u8* codes, i64 size, i32 pad_code, u8* packed) {
    i64 step = (i64)gridDim.x * blockDim.x * ITEMS, bytes = ceil_div(size, 2);
    for (i64 first = ((i64)blockIdx.x * blockDim.x + threadIdx.x) * ITEMS; first < bytes; first += step) {
        u8 low[ITEMS], high[ITEMS], out[ITEMS];
        for (int k = 0; k < ITEMS; ++k) low[k] = high[k] = (u8)pad_code;
        load_items(codes, 2 * first, size, low);
        load_items(codes, 2 * first + ITEMS, size, high);
#pragma unroll
        for (int k = 0; k < ITEMS / 2; ++k) {
            out[k] = (u8)(low[2 * k] << 4 | low[2 * k + 1]);
            out[k + ITEMS / 2] = (u8)(high[2 * k] << 4 | high[2 * k + 1]);
        }
        store_items(packed, first, bytes, out);
    }
}

extern "C" __global__ void unpack_4bit(const u8* packed, i64 size, u8* codes) {
    i64 step = (i64)gridDim.x * blockDim.x * ITEMS, bytes = ceil_div(size, 2);
    for (i64 first = ((i64)blockIdx.x * blockDim.x + threadIdx.x) * ITEMS; first < bytes; first += step) {
        u8 in[ITEMS] = {}, low[ITEMS], high[ITEMS];
        load_items(packed, first, bytes, in);
#pragma unroll
        for (int k = 0; k < ITEMS; ++k) {
            low[k] = k % 2 ? in[k / 2] & 15 : in[k / 2] >> 4;
            high[k] = k % 2 ? in[(k + ITEMS) / 2] & 15 : in[(k + ITEMS) / 2] >> 4;
        }
        store_items(codes, 2 * first, size, low);
        store_items(codes, 2 * first + ITEMS, size, high);
    }
}
