// Absmax INT8 by flat blocks, rows (blocks as long as a row), the whole tensor (one block) or columns.
#include "groups.cuh"
#include "int8.cuh"
#include "outputs.cuh"

template <class F> __device__ __forceinline__ void quantize_int8(
    const typename F::Item* x, i64 size, i64 length, i32 column, const float* absmax, i8* codes
) {
    i64 step = (i64)gridDim.x * blockDim.x * ITEMS;
    for (i64 first = ((i64)blockIdx.x * blockDim.x + threadIdx.x) * ITEMS; first < size; first += step) {
        float values[ITEMS];
        load_values<F>(x, first, size, values);
        Groups groups(length, column, first);
        SignedDivisor divisor(absmax[groups.group]);
        i8 nearest[ITEMS] = {};
        for (int k = 0; k < ITEMS && first + k < size; ++k) {
            nearest[k] = int8_code(values[k], divisor);
            if (first + k + 1 < size && groups.next()) divisor = SignedDivisor(absmax[groups.group]);
        }
        store_items(codes, first, size, nearest);
    }
}

template <class Out> __device__ __forceinline__ void dequantize_int8(
    const i8* codes, i64 size, i64 length, i32 column, const float* absmax, typename Out::Item* out
) {
    i64 step = (i64)gridDim.x * blockDim.x * ITEMS;
    for (i64 first = ((i64)blockIdx.x * blockDim.x + threadIdx.x) * ITEMS; first < size; first += step) {
        i8 items[ITEMS] = {};
        load_items(codes, first, size, items);
        Groups groups(length, column, first);
        float scale = absmax[groups.group];
        typename Out::Item values[ITEMS] = {};
        for (int k = 0; k < ITEMS && first + k < size; ++k) {
            values[k] = Out::rounded(int8_value(items[k], scale));
            if (first + k + 1 < size && groups.next()) scale = absmax[groups.group];
        }
        store_items(out, first, size, values);
    }
}

#define INT8_KERNELS(IN, OUT, NAME)                                                                                  \
    extern "C" __global__ void quantize_int8_##NAME(                                                                 \
        const IN::Item* x, i64 size, i64 length, i32 column, const float* absmax, i8* codes                          \
    ) { quantize_int8<IN>(x, size, length, column, absmax, codes); }                                                 \
    extern "C" __global__ void dequantize_int8_##NAME(                                                               \
        const i8* codes, i64 size, i64 length, i32 column, const float* absmax, OUT::Item* out                       \
    ) { dequantize_int8<OUT>(codes, size, length, column, absmax, out); }

INT8_KERNELS(Float32, ToFloat32, float32)
INT8_KERNELS(Float16, ToFloat16, float16)
INT8_KERNELS(Bfloat16, ToBfloat16, bfloat16)
