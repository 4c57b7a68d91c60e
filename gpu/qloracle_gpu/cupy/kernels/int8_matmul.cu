// Products of INT8 matrices, exact in int32, and their scales. Clauses: [int8.matmul], [int8.scale].
#include "outputs.cuh"

constexpr int TILE = 64;     // rows and columns of a CTA
constexpr int THREADS = 16;  // on either side of a CTA: a thread has 4 × 4 sums
constexpr int EACH = TILE / THREADS;
constexpr int WORDS = 8;     // four codes each: 32 of K at a time

// Four codes of a row from column k on, as one word; 0 for what lies outside the matrix.
HOST_DEVICE u32 four_codes(const i8* matrix, i64 row, i64 rows, i64 k, i64 inner) {
    if (row >= rows || k >= inner) return 0;
    const i8* source = matrix + row * inner + k;
    if (k + 4 <= inner && ((size_t)source & 3) == 0) return *reinterpret_cast<const u32*>(source);
    u32 word = 0;
    for (int byte = 0; byte < 4 && k + byte < inner; ++byte) word |= (u32)(u8)source[byte] << (8 * byte);
    return word;
}

// acc = a bᵀ; integers: the order of the sum is no matter, and the host refuses a K whose sums could overflow.
extern "C" __global__ void int8_matmul(const i8* a, const i8* b, i64 rows, i64 columns, i64 inner, i32* acc) {
    __shared__ u32 left[WORDS][TILE + 1], right[WORDS][TILE + 1];
    i64 tiles_across = ceil_div(columns, TILE), tiles = ceil_div(rows, TILE) * tiles_across;
    int thread = threadIdx.y * THREADS + threadIdx.x;
    for (i64 tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
        i64 first_row = tile / tiles_across * TILE, first_column = tile % tiles_across * TILE;
        i32 sums[EACH][EACH] = {};
        for (i64 k = 0; k < inner; k += 4 * WORDS) {
            for (int slot = thread; slot < WORDS * TILE; slot += THREADS * THREADS) {
                int word = slot % WORDS, line = slot / WORDS;
                left[word][line] = four_codes(a, first_row + line, rows, k + 4 * word, inner);
                right[word][line] = four_codes(b, first_column + line, columns, k + 4 * word, inner);
            }
            __syncthreads();
            for (int word = 0; word < WORDS; ++word) {
#pragma unroll
                for (int i = 0; i < EACH; ++i) {
#pragma unroll
                    for (int j = 0; j < EACH; ++j) {
                        sums[i][j] = __dp4a(
                            (int)left[word][threadIdx.y + i * THREADS], (int)right[word][threadIdx.x + j * THREADS],
                            sums[i][j]
                        );
                    }
                }
            }
            __syncthreads();
        }
        for (int i = 0; i < EACH; ++i) {
            for (int j = 0; j < EACH; ++j) {
                i64 row = first_row + threadIdx.y + i * THREADS, column = first_column + threadIdx.x + j * THREADS;
                if (row < rows && column < columns) acc[row * columns + column] = sums[i][j];
            }
        }
    }
}

// y = acc · row · column / 127² + bias in float64, whose range no intermediate result leaves, then float32, then Out.
template <class Out> __device__ __forceinline__ void scale_int8(
    const i32* acc, const float* row_absmax, const float* column_absmax, const float* bias, i32 has_bias, i64 size,
    i64 columns, typename Out::Item* out
) {
    i64 stride = (i64)gridDim.x * blockDim.x;
    for (i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; i < size; i += stride) {
        i64 row = i / columns, column = i - row * columns;
        double scaled = __dmul_rn(__dmul_rn((double)acc[i], (double)row_absmax[row]), (double)column_absmax[column]);
        double y = __ddiv_rn(scaled, 127.0 * 127.0);
        if (has_bias) y = __dadd_rn(y, (double)bias[column]);
        out[i] = Out::rounded(__double2float_rn(y));
    }
}

#define SCALE_KERNEL(OUT, NAME)                                                                                      \
    extern "C" __global__ void scale_int8_##NAME(                                                                    \
        const i32* acc, const float* row_absmax, const float* column_absmax, const float* bias, i32 has_bias,        \
        i64 size, i64 columns, OUT::Item* out                                                                        \
    ) { scale_int8<OUT>(acc, row_absmax, column_absmax, bias, has_bias, size, columns, out); }

SCALE_KERNEL(ToFloat32, float32)
SCALE_KERNEL(ToFloat16, float16)
SCALE_KERNEL(ToBfloat16, bfloat16)
