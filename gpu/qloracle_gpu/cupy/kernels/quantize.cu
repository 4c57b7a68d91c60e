// Codes of a codebook. Clauses: [blocks.absmax], [blockwise.quantize], [packing.nibbles].
#include "nearest.cuh"

constexpr int MOST_WARPS = 32;

// In one pass, for blocks of 8·2^k elements: 2^k neighbouring threads of a CTA hold a block in registers.
template <class F> __device__ __forceinline__ void quantize_fused(
    const typename F::Item* x, i64 size, i32 block_size, const CodebookTables& tables, const float* numbers,
    const u8* codes, const u8* cells, u8* data, float* absmax, Codebook& book, u32 (&of_warps)[MOST_WARPS]
) {
    load_codebook(book, tables, numbers, codes, cells);
    int team = block_size / ITEMS, warps = team / LANES;
    i64 step = (i64)gridDim.x * blockDim.x * ITEMS;
    for (i64 start = (i64)blockIdx.x * blockDim.x * ITEMS; start < size; start += step) {
        i64 first = start + (i64)threadIdx.x * ITEMS;
        float values[ITEMS];
        load_values<F>(x, first, size, values);
        u32 largest = largest_in_team(largest_of(values), min(team, LANES));
        if (warps > 1) {
            int warp = threadIdx.x / LANES;
            if ((threadIdx.x & (LANES - 1)) == 0) of_warps[warp] = largest;
            __syncthreads();
            int lead = warp & ~(warps - 1);
            for (int other = lead; other < lead + warps; ++other) largest = max(largest, of_warps[other]);
            __syncthreads();
        }
        if (first >= size) continue;
        float scale = absmax_of(largest);
        if ((threadIdx.x & (team - 1)) == 0) absmax[first / block_size] = scale;
        Divisor divisor = divisor_of(scale);
        u32 nearest[ITEMS];
#pragma unroll
        for (int k = 0; k < ITEMS; ++k) {
            nearest[k] = first + k < size ? nearest_code(values[k], divisor, book, tables) : tables.zero_code;
        }
        store_codes(data, first, size, nearest, tables.code_bits);
    }
}

// Given absmax of any kind, for blocks of any size: eight neighbouring elements a thread, which may lie in several blocks.
template <class F> __device__ __forceinline__ void quantize_given(
    const typename F::Item* x, i64 size, i64 block_size, const float* absmax, const CodebookTables& tables,
    const float* numbers, const u8* codes, const u8* cells, u8* data, Codebook& book
) {
    load_codebook(book, tables, numbers, codes, cells);
    i64 step = (i64)gridDim.x * blockDim.x * ITEMS;
    for (i64 first = ((i64)blockIdx.x * blockDim.x + threadIdx.x) * ITEMS; first < size; first += step) {
        float values[ITEMS];
        load_values<F>(x, first, size, values);
        i64 block = first / block_size, left = (block + 1) * block_size - first;
        SignedDivisor divisor(absmax[block]);
        u32 nearest[ITEMS];
        for (int k = 0; k < ITEMS; ++k) {
            nearest[k] = tables.zero_code;
            if (first + k >= size) continue;
            if (left == 0) {
                divisor = SignedDivisor(absmax[++block]);
                left = block_size;
            }
            --left;
            bool is_nan = magnitude_of(values[k]) > INFINITY_WORD;  // a given absmax may be finite all the same
            if (!is_nan) nearest[k] = nearest_code(divisor.turned(values[k]), divisor.magnitude, book, tables);
        }
        store_codes(data, first, size, nearest, tables.code_bits);
    }
}

#define TABLES                                                                                                        \
    i32 count, i32 cell_count, i32 first_word, i32 shift, i32 zero_code, i32 code_bits, const float* numbers,         \
        const u8* codes, const u8* cells
#define QUANTIZE_KERNELS(FORMAT, NAME)                                                                                \
    extern "C" __global__ void quantize_fused_##NAME(                                                                 \
        const FORMAT::Item* x, i64 size, i32 block_size, TABLES, u8* data, float* absmax                              \
    ) {                                                                                                               \
        __shared__ Codebook book;                                                                                     \
        __shared__ u32 of_warps[MOST_WARPS];                                                                          \
        CodebookTables tables = {count, cell_count, first_word, shift, zero_code, code_bits};                         \
        quantize_fused<FORMAT>(x, size, block_size, tables, numbers, codes, cells, data, absmax, book, of_warps);     \
    }                                                                                                                 \
    extern "C" __global__ void quantize_given_##NAME(                                                                 \
        const FORMAT::Item* x, i64 size, i64 block_size, const float* absmax, TABLES, u8* data                        \
    ) {                                                                                                               \
        __shared__ Codebook book;                                                                                     \
        CodebookTables tables = {count, cell_count, first_word, shift, zero_code, code_bits};                         \
        quantize_given<FORMAT>(x, size, block_size, absmax, tables, numbers, codes, cells, data, book);               \
    }

QUANTIZE_KERNELS(Float32, float32)
QUANTIZE_KERNELS(Float16, float16)
QUANTIZE_KERNELS(Bfloat16, bfloat16)
