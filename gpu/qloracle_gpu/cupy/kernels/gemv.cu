// Few rows of activations times a weight that is stored in codes. Clause: [quantized.matmul].
#include "codes.cuh"
#include "outputs.cuh"

constexpr int MOST_ROWS = 4;
constexpr int WARP = 32;

// A warp has one row of the weight and one sum for each row of x; flat positions are read in aligned eights.
template <int BITS> __device__ __forceinline__ void gemv(
    const float* x, i64 rows, i64 columns, i64 inner, const u8* data, const float* absmax, i64 block_size,
    const float* entries, i32 count, i32 rounding, float* out, float (&table)[256]
) {
    for (int k = threadIdx.x; k < count; k += blockDim.x) table[k] = entries[k];
    __syncthreads();
    int lane = threadIdx.x & (WARP - 1);
    i64 warps = (i64)gridDim.x * blockDim.x / WARP;
    for (i64 column = ((i64)blockIdx.x * blockDim.x + threadIdx.x) / WARP; column < columns; column += warps) {
        i64 start = column * inner, end = start + inner;
        float sums[MOST_ROWS] = {};
        for (i64 first = (start & ~(i64)(ITEMS - 1)) + lane * ITEMS; first < end; first += WARP * ITEMS) {
            u8 codes[ITEMS] = {};
            load_codes<BITS>(data, first, columns * inner, codes);
            i64 block = first / block_size, left = (block + 1) * block_size - first;
            float scale = absmax[block];
            for (int k = 0; k < ITEMS && first + k < end; ++k) {
                if (left == 0) {
                    scale = absmax[++block];
                    left = block_size;
                }
                --left;
                if (first + k < start) continue;
                float weight = rounded_weight(product_of(table[codes[k]], scale), rounding);
#pragma unroll
                for (int row = 0; row < MOST_ROWS; ++row) {
                    if (row < rows) sums[row] = __fmaf_rn(x[row * inner + first + k - start], weight, sums[row]);
                }
            }
        }
#pragma unroll
        for (int row = 0; row < MOST_ROWS; ++row) {
            for (int offset = WARP / 2; offset > 0; offset /= 2) {
                sums[row] = __fadd_rn(sums[row], __shfl_xor_sync(0xffffffffu, sums[row], offset));
            }
            if (lane == 0 && row < rows) out[row * columns + column] = sums[row];
        }
    }
}

#define GEMV_KERNEL(BITS)                                                                                            \
    extern "C" __global__ void gemv_##BITS##bit(                                                                     \
        const float* x, i64 rows, i64 columns, i64 inner, const u8* data, const float* absmax, i64 block_size,       \
        const float* entries, i32 count, i32 rounding, float* out                                                    \
    ) {                                                                                                              \
        __shared__ float table[256];                                                                                 \
        gemv<BITS>(x, rows, columns, inner, data, absmax, block_size, entries, count, rounding, out, table);         \
    }

GEMV_KERNEL(4)
GEMV_KERNEL(8)
