// Few rows of activations times a weight of integer codes, INT8 or affine. Clauses: [quantized.matmul],
// [weight_only.forward].
#include "affine.cuh"
#include "groups.cuh"
#include "int8.cuh"
#include "outputs.cuh"

constexpr int WARP = 32;
constexpr int CODES = 16;              // of a lane at a time: one access of 16 bytes
constexpr int QUADS = CODES / 4;       // numbers of x are read by four
constexpr int STRIPE = WARP * CODES;   // codes of a warp at a time
constexpr int HELD_QUADS = 2048;       // of x in shared memory: 32 KiB

struct alignas(16) Quad {
    float numbers[4];
};

// Where codes lie, and which of them share a scale.
struct Codes {
    const u8* items;
    i64 length;
    bool column;
};

struct Int8Weight {
    const float* absmax;

    struct Scale {
        float absmax;
        HOST_DEVICE float value(u8 code) const { return int8_value((i8)code, absmax); }
    };
    HOST_DEVICE Scale of_group(i64 group) const { return {absmax[group]}; }
};

struct AffineWeight {
    const float* scales;
    const i32* zero_points;
    bool has_sign;

    struct Scale {
        float scale;
        i32 zero_point;
        bool has_sign;
        HOST_DEVICE float value(u8 code) const {
            return affine_value(has_sign ? (i32)(i8)code : (i32)code, zero_point, scale);
        }
    };
    HOST_DEVICE Scale of_group(i64 group) const { return {scales[group], zero_points[group], has_sign}; }
};

// The values of a lane's codes from `first` on; 0 for what lies at or beyond `end`.
template <class Weight> __device__ __forceinline__ void read_weights(
    const Codes& codes, const Weight& weight, i32 rounding, i64 first, i64 end, float (&values)[CODES]
) {
    u8 items[CODES] = {};
    load_items(codes.items, first, end, items);
    Groups groups(codes.length, codes.column, first);
    int count = (int)min(end - first, (i64)CODES);
    bool several = codes.column || groups.left < count;
    typename Weight::Scale scale = weight.of_group(groups.group);
#pragma unroll
    for (int k = 0; k < CODES; ++k) {
        values[k] = 0.0f;
        if (k >= count) continue;
        if (several && k > 0 && groups.next()) scale = weight.of_group(groups.group);
        values[k] = rounded_weight(scale.value(items[k]), rounding);
    }
}

// Where the quad of a row's numbers lies that a lane reads with its codes: lanes beside each other, so that no two of
// a quarter of a warp ask one bank.
HOST_DEVICE int place_of(int quad) {
    int stripe = quad / (WARP * QUADS), inside = quad % (WARP * QUADS);
    return (stripe * QUADS + inside % QUADS) * WARP + inside / QUADS;
}

// Hold the numbers of all rows from position `first` on, one stripe after another; +0 beyond the end of a row.
template <int ROW_QUADS> __device__ __forceinline__ void hold(
    const float* x, i64 rows, i64 inner, i64 first, Quad (&held)[HELD_QUADS]
) {
    int quads = (int)min(ceil_div(inner - first, STRIPE) * (STRIPE / 4), (i64)ROW_QUADS);
    for (int row = 0; row < rows; ++row) {
        i64 start = row * inner, end = start + inner;
        for (int quad = threadIdx.x; quad < quads; quad += blockDim.x) {
            Quad four = {};
            load_items(x, start + first + 4 * quad, end, four.numbers);
            held[row * ROW_QUADS + place_of(quad)] = four;
        }
    }
}

// A warp has one row of the weight and one sum for each row of x, which all warps of a CTA read from shared memory.
template <int ROWS, class Weight> __device__ __forceinline__ void gemv(
    const float* x, i64 rows, i64 columns, i64 inner, const Codes& codes, const Weight& weight, i32 rounding,
    float* out, Quad (&held)[HELD_QUADS]
) {
    constexpr int ROW_QUADS = HELD_QUADS / ROWS;
    int lane = threadIdx.x & (WARP - 1), warp = threadIdx.x / WARP, warps = blockDim.x / WARP;
    for (i64 base = (i64)blockIdx.x * warps; base < columns; base += (i64)gridDim.x * warps) {
        i64 column = base + warp;
        float sums[ROWS] = {};
        for (i64 first = 0; first < inner; first += 4 * ROW_QUADS) {
            hold<ROW_QUADS>(x, rows, inner, first, held);
            __syncthreads();
            i64 end = column < columns ? min(first + 4 * ROW_QUADS, inner) : first;
            int quad = lane;
            for (i64 k = first + lane * CODES; k < end; k += STRIPE, quad += WARP * QUADS) {
                float values[CODES];
                read_weights(codes, weight, rounding, column * inner + k, (column + 1) * inner, values);
#pragma unroll
                for (int row = 0; row < ROWS; ++row) {
                    if (row >= rows) break;
#pragma unroll
                    for (int part = 0; part < QUADS; ++part) {
                        Quad four = held[row * ROW_QUADS + quad + part * WARP];
#pragma unroll
                        for (int number = 0; number < 4; ++number) {
                            sums[row] = __fmaf_rn(four.numbers[number], values[4 * part + number], sums[row]);
                        }
                    }
                }
            }
            __syncthreads();
        }
#pragma unroll
        for (int row = 0; row < ROWS; ++row) {
            for (int offset = WARP / 2; offset > 0; offset /= 2) {
                sums[row] = __fadd_rn(sums[row], __shfl_xor_sync(0xffffffffu, sums[row], offset));
            }
            if (lane == 0 && row < rows && column < columns) out[row * columns + column] = sums[row];
        }
    }
}

#define GEMV_KERNELS(ROWS)                                                                                           \
    extern "C" __global__ void gemv_int8_##ROWS##rows(                                                               \
        const float* x, i64 rows, i64 columns, i64 inner, const u8* items, i64 length, i32 column,                   \
        const float* absmax, i32 rounding, float* out                                                                \
    ) {                                                                                                              \
        __shared__ Quad held[HELD_QUADS];                                                                            \
        Codes codes = {items, length, column != 0};                                                                  \
        Int8Weight weight = {absmax};                                                                                \
        gemv<ROWS>(x, rows, columns, inner, codes, weight, rounding, out, held);                                     \
    }                                                                                                                \
    extern "C" __global__ void gemv_affine_##ROWS##rows(                                                             \
        const float* x, i64 rows, i64 columns, i64 inner, const u8* items, i64 length, i32 column,                   \
        const float* scales, const i32* zero_points, i32 has_sign, i32 rounding, float* out                          \
    ) {                                                                                                              \
        __shared__ Quad held[HELD_QUADS];                                                                            \
        Codes codes = {items, length, column != 0};                                                                  \
        AffineWeight weight = {scales, zero_points, has_sign != 0};                                                  \
        gemv<ROWS>(x, rows, columns, inner, codes, weight, rounding, out, held);                                     \
    }

GEMV_KERNELS(1)
GEMV_KERNELS(4)
GEMV_KERNELS(16)
