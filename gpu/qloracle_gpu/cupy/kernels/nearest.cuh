// The nearest entry of a codebook, exactly: guess in float32, decide in float64 only where the guess may be wrong.
// Clause: [blockwise.quantize].
//
// Let q be x/absmax, computed by two or three roundings, each off by at most 2^−24 of its result or, where that
// underflows, by 2^−150. Beside every boundary m between two entries the host puts a lower and an upper float32 number,
// 2^−20·|m| and 2^−124 or more away: a q above the upper one proves x/absmax > m, one below the lower one x/absmax < m.
// Between them the comparison 2x > absmax·v_i + absmax·v_{i+1} decides: both products have at most 48 bits and are exact
// in float64; their sum is total + error exactly (Knuth's TwoSum), and only where 2x equals total does error matter.
#pragma once
#include "divisors.cuh"
#include "teams.cuh"

constexpr int MOST_ENTRIES = 256;
constexpr int MOST_CELLS = 4096;

// A codebook as quantizing reads it, in shared memory.
struct Codebook {
    float lower[MOST_ENTRIES];   // beside the boundaries between neighbouring entries, ascending
    float upper[MOST_ENTRIES];
    float values[MOST_ENTRIES];  // the entries in ascending order
    u8 codes[MOST_ENTRIES];      // their codes
    u8 cells[MOST_CELLS];        // how many boundaries lie certainly below all q of a cell
};

// What the host passes: the three arrays, and the layout of the cells.
struct CodebookTables {
    i32 count;        // of entries
    i32 cells;        // on either side of zero
    i32 first_word;   // the magnitude of q, shifted, of the first cell
    i32 shift;        // bits of a float32 word that a cell ignores
    i32 zero_code;
    i32 code_bits;
};

__device__ __forceinline__ void load_codebook(
    Codebook& book, const CodebookTables& tables, const float* numbers, const u8* codes, const u8* cells
) {
    for (int k = threadIdx.x; k < tables.count; k += blockDim.x) {
        book.lower[k] = numbers[k];
        book.upper[k] = numbers[tables.count + k];
        book.values[k] = numbers[2 * tables.count + k];
        book.codes[k] = codes[k];
    }
    for (int k = threadIdx.x; k < 2 * tables.cells; k += blockDim.x) book.cells[k] = cells[k];
    __syncthreads();
}

// Whether the real number x/absmax lies above the middle of two entries; absmax > 0.
HOST_DEVICE bool is_beyond(float x, float absmax, float low, float high) {
    double scale = absmax, twice = __dmul_rn(2.0, x);
    double first = __dmul_rn(scale, low), second = __dmul_rn(scale, high);
    double total = __dadd_rn(first, second);
    double shifted = __dsub_rn(total, first);
    double error = __dadd_rn(__dsub_rn(first, __dsub_rn(total, shifted)), __dsub_rn(second, shifted));
    return twice > total || (twice == total && error < 0.0);
}

HOST_DEVICE u32 nearest_code(float x, const Divisor& divisor, const Codebook& book, const CodebookTables& tables) {
    if (!divisor.usable) return tables.zero_code;
    float quotient = quotient_of(x, divisor);
    i32 cell = (i32)(magnitude_of(quotient) >> tables.shift) - tables.first_word;
    cell = max(0, min(cell, tables.cells - 1));
    int rank = book.cells[word_of(quotient) & SIGN ? tables.cells + cell : cell];
    while (rank < tables.count - 1 && quotient >= book.lower[rank]
           && (quotient > book.upper[rank] || is_beyond(x, divisor.absmax, book.values[rank], book.values[rank + 1]))) {
        ++rank;
    }
    return book.codes[rank];
}

// The first byte holds the codes of the first two elements, the first of them in the high nibble: [packing.nibbles].
HOST_DEVICE u32 packed_codes(const u32 (&codes)[ITEMS]) {
    u32 packed = 0;
#pragma unroll
    for (int k = 0; k < ITEMS; ++k) packed |= codes[k] << (4 * (k ^ 1));
    return packed;
}

// Store the codes of eight elements, of which those before `size` exist: bytes, or packed nibbles.
HOST_DEVICE void store_codes(u8* data, i64 first, i64 size, const u32 (&codes)[ITEMS], int code_bits) {
    if (code_bits == 4) {
        u32 packed = packed_codes(codes);
        u8 bytes[ITEMS / 2];
        memcpy(bytes, &packed, sizeof(bytes));
        u8* target = data + first / 2;
        if (first + ITEMS <= size && ((size_t)target & 3) == 0) {
            *reinterpret_cast<u32*>(target) = packed;
            return;
        }
        for (int k = 0; k < ITEMS / 2; ++k) {
            if (first + 2 * k < size) target[k] = bytes[k];
        }
        return;
    }
    u8 bytes[ITEMS];
#pragma unroll
    for (int k = 0; k < ITEMS; ++k) bytes[k] = (u8)codes[k];
    store_items(data, first, size, bytes);
}
