// Values of codes. Clauses: [packing.nibbles], [blockwise.dequantize], [double_quant.dequantize].
#include "codes.cuh"
#include "outputs.cuh"

template <int BITS, class Out> __device__ __forceinline__ void dequantize(
    const u8* data, const float* absmax, i64 size, i64 block_size, const float* entries, i32 count,
    typename Out::Item* out, float (&table)[256]
) {
    for (int k = threadIdx.x; k < count; k += blockDim.x) table[k] = entries[k];
    __syncthreads();
    i64 step = (i64)gridDim.x * blockDim.x * ITEMS;
    for (i64 first = ((i64)blockIdx.x * blockDim.x + threadIdx.x) * ITEMS; first < size; first += step) {
        u8 codes[ITEMS] = {};
        load_codes<BITS>(data, first, size, codes);
        i64 block = first / block_size, left = (block + 1) * block_size - first;
        float scale = absmax[block];
        typename Out::Item values[ITEMS];
        for (int k = 0; k < ITEMS; ++k) {
            if (left == 0 && first + k < size) {
                scale = absmax[++block];
                left = block_size;
            }
            --left;
            values[k] = Out::rounded(product_of(table[codes[k]], scale));
        }
        store_items(out, first, size, values);
    }
}

#define DEQUANTIZE_KERNEL(BITS, FORMAT, NAME)                                                                        \
    extern "C" __global__ void dequantize_##BITS##bit_##NAME(                                                        \
        const u8* data, const float* absmax, i64 size, i64 block_size, const float* entries, i32 count,              \
        FORMAT::Item* out                                                                                            \
    ) {                                                                                                              \
        __shared__ float table[256];                                                                                 \
        dequantize<BITS, FORMAT>(data, absmax, size, block_size, entries, count, out, table);                        \
    }
#define DEQUANTIZE_KERNELS(FORMAT, NAME) DEQUANTIZE_KERNEL(4, FORMAT, NAME) DEQUANTIZE_KERNEL(8, FORMAT, NAME)

DEQUANTIZE_KERNELS(ToFloat32, float32)
DEQUANTIZE_KERNELS(ToFloat16, float16)
DEQUANTIZE_KERNELS(ToBfloat16, bfloat16)

// restored absmax = fl32(fl32(entry · nested absmax) + offset), codes one a byte whatever their width.
extern "C" __global__ void restore_absmax(
    const u8* codes, const float* nested, const float* offset, i64 size, i64 block_size, const float* entries, float* out
) {
    i64 stride = (i64)gridDim.x * blockDim.x;
    for (i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; i < size; i += stride) {
        out[i] = __fadd_rn(product_of(entries[codes[i]], nested[i / block_size]), *offset);
    }
}
