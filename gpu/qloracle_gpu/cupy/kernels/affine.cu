// Affine quantization by groups, fake quantization, and its straight-through gradient. Clauses: [affine.quantize],
// [affine.dequantize], [symmetric.scale], [fake_quant.forward], [fake_quant.backward].
#include "affine.cuh"
#include "groups.cuh"
#include "outputs.cuh"

extern "C" __global__ void affine_parameters(
    const float* lo, const float* hi, i64 size, i32 qmin, i32 qmax, float* scale, i32* zero_point
) {
    i64 stride = (i64)gridDim.x * blockDim.x;
    for (i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; i < size; i += stride) {
        float found = scale_of_range(lo[i], hi[i], qmax - qmin);
        scale[i] = found;
        zero_point[i] = zero_point_of(lo[i], hi[i], found, qmin, qmax);
    }
}

// Which ranges are the wrong way round; none that has a NaN.
extern "C" __global__ void descends(const float* lo, const float* hi, i64 size, u8* out) {
    i64 stride = (i64)gridDim.x * blockDim.x;
    for (i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; i < size; i += stride) out[i] = lo[i] > hi[i] ? 1 : 0;
}

// A clipping range is a range from 0: scale = RN_float32(clip/qmax).
extern "C" __global__ void symmetric_scale(const float* clip, i64 size, i32 qmax, float* scale) {
    i64 stride = (i64)gridDim.x * blockDim.x;
    for (i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; i < size; i += stride) {
        scale[i] = scale_of_range(0.0f, clip[i], qmax);
    }
}

// What the elements of a group share.
struct Parameters {
    const float* scales;
    const i32* zero_points;
    i32 qmin, qmax;
};

// Eight neighbouring elements a thread, which may lie in several groups; `Part` is what is done with them.
template <class Part, class... A> __device__ __forceinline__ void by_groups(
    i64 size, i64 length, i32 column, const Parameters& parameters, A... arguments
) {
    i64 step = (i64)gridDim.x * blockDim.x * ITEMS;
    for (i64 first = ((i64)blockIdx.x * blockDim.x + threadIdx.x) * ITEMS; first < size; first += step) {
        Part part(first, size, arguments...);
        Groups groups(length, column, first);
        part.enter(parameters, groups.group);
        for (int k = 0; k < ITEMS && first + k < size; ++k) {
            part.visit(k);
            if (first + k + 1 < size && groups.next()) part.enter(parameters, groups.group);
        }
        part.store(first, size);
    }
}

// A group's scale and zero point, and the range of codes.
struct Group {
    i32 zero_point, qmin, qmax;
    float scale;
    SignedDivisor divisor;

    HOST_DEVICE Group() : zero_point(0), qmin(0), qmax(0), scale(0.0f), divisor(0.0f) {}
    HOST_DEVICE Group(const Parameters& p, i64 group)
        : zero_point(p.zero_points[group]), qmin(p.qmin), qmax(p.qmax), scale(p.scales[group]), divisor(scale) {}

    HOST_DEVICE i32 code(float x) const { return clipped(steps_of(x, divisor) + zero_point, qmin, qmax); }
    HOST_DEVICE float value(i32 code) const { return affine_value(code, zero_point, scale); }
};

template <class In> struct Quantizing {
    float values[ITEMS];
    u8 codes[ITEMS] = {};
    u8* out;
    Group group;

    HOST_DEVICE Quantizing(i64 first, i64 size, const typename In::Item* x, u8* out) : out(out) {
        load_values<In>(x, first, size, values);
    }
    HOST_DEVICE void enter(const Parameters& parameters, i64 index) { group = Group(parameters, index); }
    HOST_DEVICE void visit(int k) { codes[k] = (u8)group.code(values[k]); }
    HOST_DEVICE void store(i64 first, i64 size) { store_items(out, first, size, codes); }
};

template <class Out> struct Dequantizing {
    u8 codes[ITEMS] = {};
    typename Out::Item values[ITEMS] = {};
    bool has_sign;
    typename Out::Item* out;
    i32 zero_point;
    float scale;

    HOST_DEVICE Dequantizing(i64 first, i64 size, const u8* data, bool has_sign, typename Out::Item* out)
        : has_sign(has_sign), out(out) {
        load_items(data, first, size, codes);
    }
    HOST_DEVICE void enter(const Parameters& parameters, i64 index) {
        zero_point = parameters.zero_points[index];
        scale = parameters.scales[index];
    }
    HOST_DEVICE void visit(int k) {
        i32 code = has_sign ? (i32)(i8)codes[k] : (i32)codes[k];
        values[k] = Out::rounded(affine_value(code, zero_point, scale));
    }
    HOST_DEVICE void store(i64 first, i64 size) { store_items(out, first, size, values); }
};

template <class In, class Out> struct Faking {
    float values[ITEMS];
    typename Out::Item results[ITEMS] = {};
    typename Out::Item* out;
    Group group;

    HOST_DEVICE Faking(i64 first, i64 size, const typename In::Item* x, typename Out::Item* out) : out(out) {
        load_values<In>(x, first, size, values);
    }
    HOST_DEVICE void enter(const Parameters& parameters, i64 index) { group = Group(parameters, index); }
    HOST_DEVICE void visit(int k) { results[k] = Out::rounded(group.value(group.code(values[k]))); }
    HOST_DEVICE void store(i64 first, i64 size) { store_items(out, first, size, results); }
};

// The gradient passes as it is, a word, where x lies inside; +0 elsewhere, and NaN where the scale is.
template <class In, class Out> struct Passing {
    float values[ITEMS];
    typename In::Item words[ITEMS] = {};
    bool by_codes;
    typename In::Item* out;
    Group group;
    float low, high;  // the values of the outermost codes in the format of x

    HOST_DEVICE Passing(
        i64 first, i64 size, const typename In::Item* dy, const typename In::Item* x, bool by_codes,
        typename In::Item* out
    ) : by_codes(by_codes), out(out) {
        load_values<In>(x, first, size, values);
        load_items(dy, first, size, words);
    }
    HOST_DEVICE void enter(const Parameters& parameters, i64 index) {
        group = Group(parameters, index);
        float one = In::value(Out::rounded(group.value(group.qmin)));
        float other = In::value(Out::rounded(group.value(group.qmax)));
        bool ascending = one <= other;  // if one of them is NaN nothing lies between
        low = ascending ? one : other;
        high = ascending ? other : one;
    }
    HOST_DEVICE bool is_inside(float x) const {
        if (!by_codes) return low <= x && x <= high;
        if (magnitude_of(x) >= INFINITY_WORD) return false;
        i32 code = steps_of(x, group.divisor) + group.zero_point;
        return group.qmin <= code && code <= group.qmax;
    }
    HOST_DEVICE void visit(int k) {
        if (magnitude_of(group.scale) > INFINITY_WORD) words[k] = Out::rounded(float_of(NAN_WORD));
        else if (!is_inside(values[k])) words[k] = 0;
    }
    HOST_DEVICE void store(i64 first, i64 size) { store_items(out, first, size, words); }
};

#define GROUPED                                                                                                      \
    i64 size, i64 length, i32 column, const float* scales, const i32* zero_points, i32 qmin, i32 qmax
#define PARAMETERS {scales, zero_points, qmin, qmax}
#define AFFINE_KERNELS(IN, OUT, NAME)                                                                                \
    extern "C" __global__ void quantize_affine_##NAME(const IN::Item* x, GROUPED, u8* codes) {                       \
        Parameters parameters = PARAMETERS;                                                                          \
        by_groups<Quantizing<IN>>(size, length, column, parameters, x, codes);                                       \
    }                                                                                                                \
    extern "C" __global__ void dequantize_affine_##NAME(const u8* codes, i32 has_sign, GROUPED, OUT::Item* out) {    \
        Parameters parameters = PARAMETERS;                                                                          \
        by_groups<Dequantizing<OUT>>(size, length, column, parameters, codes, has_sign != 0, out);                   \
    }                                                                                                                \
    extern "C" __global__ void fake_quantize_##NAME(const IN::Item* x, GROUPED, OUT::Item* out) {                    \
        Parameters parameters = PARAMETERS;                                                                          \
        by_groups<Faking<IN, OUT>>(size, length, column, parameters, x, out);                                        \
    }                                                                                                                \
    extern "C" __global__ void fake_quantize_backward_##NAME(                                                        \
        const IN::Item* dy, const IN::Item* x, i32 by_codes, GROUPED, IN::Item* out                                  \
    ) {                                                                                                              \
        Parameters parameters = PARAMETERS;                                                                          \
        by_groups<Passing<IN, OUT>>(size, length, column, parameters, dy, x, by_codes != 0, out);                    \
    }

AFFINE_KERNELS(Float32, ToFloat32, float32)
AFFINE_KERNELS(Float16, ToFloat16, float16)
AFFINE_KERNELS(Bfloat16, ToBfloat16, bfloat16)
