// One step of AdamW for one element. Clauses: [adamw.moments], [adamw.parameter], [adamw.nonfinite],
// [adamw.stochastic].
#pragma once
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

// m̂/(√v̂ + eps); 0 where m' is.
HOST_DEVICE double update_of(const Moments& moments, const Step& step) {
    double mean = __ddiv_rn(moments.m, step.correction1), square = __ddiv_rn(moments.v, step.correction2);
    return __ddiv_rn(mean, __dadd_rn(__dsqrt_rn(square), step.eps));
}

// p' = p·(1 − lr·wd) − lr·c·update
HOST_DEVICE double next_parameter(double p, double update, const Step& step) {
    return __dsub_rn(__dmul_rn(p, step.decay), __dmul_rn(step.rate, update));
}

// What the moments of an element become, and whether its parameter stays: an element whose gradient is not finite may
// be left as it is, or lose its moments.
HOST_DEVICE bool stays(float gradient, const Step& step) {
    return magnitude_of(gradient) >= INFINITY_WORD && step.nonfinite != PROPAGATE;
}

HOST_DEVICE Moments moments_after(const Moments& old, float gradient, const Step& step) {
    if (!stays(gradient, step)) return next_moments(old, gradient, step);
    return step.nonfinite == RESET ? Moments{0.0f, 0.0f} : old;
}

// The word of a parameter, rounded to its format: to nearest, or stochastically.
HOST_DEVICE u32 parameter_word(double real, const Format& format, i32 rounding, const u32* random_bits, i64 i) {
    Rule rule = {rounding, 0, NAN_PAYLOAD};
    Number number = number_of_word((u64)__double_as_longlong(real), format_float64());
    return (u32)rounded_word(number, format, rule, rounding == STOCHASTIC ? random_bits[i] : 0);
}

#define STEP_PARAMETERS                                                                                              \
    double beta1, double rest1, double beta2, double rest2, double decay, double rate, double correction1,           \
        double correction2, double eps, i32 nonfinite
#define STEP {beta1, rest1, beta2, rest2, decay, rate, correction1, correction2, eps, nonfinite}
