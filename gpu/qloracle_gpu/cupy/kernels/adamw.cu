// One step of AdamW, its moments in float32 or in 8 bits. Clauses: [adamw.moments], [adamw.parameter],
// [adamw.nonfinite], [adamw.stochastic], [adamw8bit.dequantize].
#include "codes.cuh"
#include "outputs.cuh"

constexpr int PROPAGATE = 0, RESET = 2;

// Numbers of one step, from the hyperparameters.
struct Step {
    double beta1, rest1;        // β₁, 1 − β₁
    double beta2, rest2;
    double decay, rate;         // 1 − lr·wd, lr
    double correction1;         // 1 − β₁^t
    double correction2;
    double eps;
    i32 nonfinite;
};

struct Moments {
    float m, v;
};

// m' = fl32(β₁·m + (1 − β₁)·g), v' = fl32(β₂·v + (1 − β₂)·g²)
HOST_DEVICE Moments next_moments(const Moments& old, double g, const Step& step) {
    double m = __dadd_rn(__dmul_rn(step.beta1, old.m), __dmul_rn(step.rest1, g));
    double v = __dadd_rn(__dmul_rn(step.beta2, old.v), __dmul_rn(step.rest2, __dmul_rn(g, g)));
    return {__double2float_rn(m), __double2float_rn(v)};
}

// p' = p·(1 − lr·wd) − lr·m̂/(√v̂ + eps); nothing moves where m' is 0.
HOST_DEVICE double next_parameter(double p, const Moments& moments, const Step& step) {
    double mean = __ddiv_rn(moments.m, step.correction1), square = __ddiv_rn(moments.v, step.correction2);
    double update = __ddiv_rn(__dmul_rn(step.rate, mean), __dadd_rn(__dsqrt_rn(square), step.eps));
    return __dsub_rn(__dmul_rn(p, step.decay), update);
}

template <class In> HOST_DEVICE void step_element(
    const typename In::Item* p, const typename In::Item* gradient, i64 i, const Moments& old, const Step& step,
    const Format& format, const u32* random_bits, i32 rounding, typename In::Item* p_out, float* m_out, float* v_out
) {
    float g = In::value(gradient[i]);
    bool finite = magnitude_of(g) < INFINITY_WORD;
    if (!finite && step.nonfinite != PROPAGATE) {
        bool reset = step.nonfinite == RESET;
        p_out[i] = p[i];
        m_out[i] = reset ? 0.0f : old.m;
        v_out[i] = reset ? 0.0f : old.v;
        return;
    }
    Moments moments = next_moments(old, g, step);
    double real = next_parameter(In::value(p[i]), moments, step);
    Rule rule = {rounding, 0, NAN_PAYLOAD};
    Number number = number_of_word((u64)__double_as_longlong(real), format_float64());
    u32 random = rounding == STOCHASTIC ? random_bits[i] : 0;
    u32 word = (u32)rounded_word(number, format, rule, random);
    memcpy(&p_out[i], &word, sizeof(typename In::Item));
    m_out[i] = moments.m;
    v_out[i] = moments.v;
}

#define STEP_PARAMETERS                                                                                              \
    double beta1, double rest1, double beta2, double rest2, double decay, double rate, double correction1,           \
        double correction2, double eps, i32 nonfinite, const u32* random_bits, i32 rounding
#define STEP {beta1, rest1, beta2, rest2, decay, rate, correction1, correction2, eps, nonfinite}

#define ADAMW_KERNELS(IN, NAME)                                                                                      \
    extern "C" __global__ void adamw_##NAME(                                                                         \
        const IN::Item* p, const IN::Item* gradient, const float* m, const float* v, i64 size, STEP_PARAMETERS,      \
        IN::Item* p_out, float* m_out, float* v_out                                                                  \
    ) {                                                                                                              \
        Step step = STEP;                                                                                            \
        i64 stride = (i64)gridDim.x * blockDim.x;                                                                    \
        for (i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; i < size; i += stride) {                            \
            Moments old = {m[i], v[i]};                                                                              \
            step_element<IN>(p, gradient, i, old, step, format_##NAME(), random_bits, rounding, p_out, m_out, v_out); \
        }                                                                                                            \
    }                                                                                                                \
    extern "C" __global__ void adamw8bit_##NAME(                                                                     \
        const IN::Item* p, const IN::Item* gradient, const u8* codes_m, const float* absmax_m, const u8* codes_v,    \
        const float* absmax_v, i64 size, i64 block_size, const float* entries_m, const float* entries_v,             \
        STEP_PARAMETERS, IN::Item* p_out, float* m_out, float* v_out                                                 \
    ) {                                                                                                              \
        Step step = STEP;                                                                                            \
        i64 stride = (i64)gridDim.x * blockDim.x;                                                                    \
        for (i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; i < size; i += stride) {                            \
            i64 block = i / block_size;                                                                              \
            Moments old = {                                                                                          \
                product_of(entries_m[codes_m[i]], absmax_m[block]), product_of(entries_v[codes_v[i]], absmax_v[block]) \
            };                                                                                                       \
            step_element<IN>(p, gradient, i, old, step, format_##NAME(), random_bits, rounding, p_out, m_out, v_out); \
        }                                                                                                            \
    }

ADAMW_KERNELS(Float32, float32)
ADAMW_KERNELS(Float16, float16)
ADAMW_KERNELS(Bfloat16, bfloat16)
