/* Three operations as somebody might write them, and, with one of the FAULT_ macros, as somebody might get them wrong. */
#ifndef KERNELS_H
#define KERNELS_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "qloracle.h"

static float float_of(uint32_t word)
{
    float value;
    memcpy(&value, &word, sizeof value);
    return value;
}

static uint32_t word_of(float value)
{
    uint32_t word;
    memcpy(&word, &value, sizeof word);
    return word;
}

static uint16_t bfloat16_of(uint32_t word)
{
    if ((word & 0x7fffffffu) > QLORACLE_FLOAT32_INFINITY_BITS)
        return (uint16_t)((word >> 16) | 0x40u); /* NaN stays NaN, whatever lies in the half that is dropped */
#ifdef FAULT_TRUNCATED
    return (uint16_t)(word >> 16);
#else
    return (uint16_t)((word + 0x7fffu + ((word >> 16) & 1u)) >> 16);
#endif
}

static uint8_t nf4_code(float x, float absmax)
{
    uint8_t code = 0;
#ifdef FAULT_RECIPROCAL
    float quotient = x * (1.0f / absmax);
#else
    double quotient = (double)x / (double)absmax;
#endif
    if (!(absmax > 0.0f))
        return QLORACLE_NF4_ZERO_CODE; /* a block of zeros, or one that is poisoned */
#ifdef FAULT_TIE
    while (code < 15 && quotient >= qloracle_nf4_midpoints[code])
#else
    while (code < 15 && quotient > qloracle_nf4_midpoints[code])
#endif
        code++;
    return qloracle_nf4_codes[code];
}

/* absmax of one block; NaN if any element is NaN or infinite. */
static float absmax_of(const uint32_t *x, size_t count)
{
    uint32_t largest = 0;
    for (size_t i = 0; i < count; i++)
        if ((x[i] & 0x7fffffffu) > largest)
            largest = x[i] & 0x7fffffffu;
    return float_of(largest < QLORACLE_FLOAT32_INFINITY_BITS ? largest : QLORACLE_FLOAT32_QUIET_NAN_BITS);
}

static void nf4_quantize(const uint32_t *x, size_t count, size_t block_size, uint8_t *data, uint32_t *absmax)
{
    for (size_t block = 0; block * block_size < count; block++) {
        size_t first = block * block_size, length = count - first < block_size ? count - first : block_size;
#ifdef FAULT_TAIL
        /* The last block is reduced over as many elements as any other: some are of the block before. */
        if (length < block_size && block > 0)
            absmax[block] = word_of(absmax_of(x + count - block_size, block_size));
        else
#endif
            absmax[block] = word_of(absmax_of(x + first, length));
    }
    memset(data, 0, (count + 1) / 2);
    for (size_t i = 0; i < count + count % 2; i++) {
        uint8_t code = QLORACLE_NF4_ZERO_CODE;
        if (i < count)
            code = nf4_code(float_of(x[i]), float_of(absmax[i / block_size]));
#ifdef FAULT_SWAPPED
        data[i / 2] |= (uint8_t)(i % 2 ? code << 4 : code);
#else
        data[i / 2] |= (uint8_t)(i % 2 ? code : code << 4);
#endif
    }
}

static void nf4_dequantize(const uint8_t *data, const uint32_t *absmax, size_t count, size_t block_size, uint32_t *values)
{
    for (size_t i = 0; i < count; i++) {
        float scale = float_of(absmax[i / block_size]);
#ifdef FAULT_READ_SWAPPED
        uint8_t code = i % 2 ? data[i / 2] >> 4 : data[i / 2] & 15;
#else
        uint8_t code = i % 2 ? data[i / 2] & 15 : data[i / 2] >> 4;
#endif
        if (isinf(scale))
            scale = NAN; /* a poisoned block */
        values[i] = scale == 0.0f ? 0 : word_of(float_of(qloracle_nf4_words[code]) * scale);
    }
}

#endif
