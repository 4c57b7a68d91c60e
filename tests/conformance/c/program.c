/* A program of three operations that is judged without Python in it:
 *
 *     qloracle gen nf4.quantize --dtype float32 | program pipe | qloracle judge nf4.quantize --dtype float32
 *     program vectors blockwise.txt conversions.txt
 *
 * The second form compares with the limits in the files itself, prints what leaves them, and returns 1 if anything does.
 */
#include "cases.h"
#include "kernels.h"

#define NOT_OURS 1
#define REFUSED 2

static uint32_t *narrow(const array_t *array)
{
    uint32_t *words = allocated(array->count, sizeof *words);
    for (size_t i = 0; i < array->count; i++)
        words[i] = (uint32_t)array->words[i];
    return words;
}

static void make_output(array_t *output, const char *type, size_t ndim, const size_t *dims)
{
    strcpy(output->type, type);
    output->ndim = ndim;
    output->count = 1;
    for (size_t i = 0; i < ndim; i++)
        output->count *= output->dims[i] = dims[i];
    output->words = allocated(output->count, sizeof *output->words);
}

static int quantize(const case_t *given, array_t *outputs)
{
    const array_t *x = input_named(given, "x");
    if (given->block_size < 1 || strcmp(given->codebook, "nf4") != 0)
        return REFUSED;
    if (strcmp(x->type, "float32") != 0)
        return NOT_OURS;
    size_t block_size = (size_t)given->block_size, bytes = (x->count + 1) / 2;
    size_t blocks = (x->count + block_size - 1) / block_size;
    uint32_t *values = narrow(x), *absmax = allocated(blocks, sizeof *absmax);
    uint8_t *data = allocated(bytes, 1);
    nf4_quantize(values, x->count, block_size, data, absmax);
    make_output(&outputs[0], "uint8", 1, &bytes);
    make_output(&outputs[1], "float32", 1, &blocks);
    for (size_t i = 0; i < bytes; i++)
        outputs[0].words[i] = data[i];
    for (size_t i = 0; i < blocks; i++)
        outputs[1].words[i] = absmax[i];
    free(values), free(absmax), free(data);
    return 0;
}

static int dequantize(const case_t *given, array_t *outputs)
{
    const array_t *data = input_named(given, "data"), *absmax = input_named(given, "absmax");
    if (given->block_size < 1 || strcmp(given->codebook, "nf4") != 0)
        return REFUSED;
    size_t block_size = (size_t)given->block_size;
    if (data->count != (given->size + 1) / 2 || absmax->count != (given->size + block_size - 1) / block_size)
        return REFUSED;
    if (strcmp(given->dtype, "float16") == 0 || strcmp(given->dtype, "bfloat16") == 0)
        return NOT_OURS;
    if (strcmp(given->dtype, "float32") != 0)
        return REFUSED;
    uint32_t *scales = narrow(absmax), *values = allocated(given->size, sizeof *values);
    uint8_t *bytes = allocated(data->count, 1);
    for (size_t i = 0; i < data->count; i++)
        bytes[i] = (uint8_t)data->words[i];
    nf4_dequantize(bytes, scales, given->size, block_size, values);
    make_output(&outputs[0], "float32", given->shape_ndim, given->shape);
    for (size_t i = 0; i < given->size; i++)
        outputs[0].words[i] = values[i];
    free(scales), free(values), free(bytes);
    return 0;
}

static int to_bfloat16(const case_t *given, array_t *outputs)
{
    const array_t *values = input_named(given, "values");
    if (strcmp(given->fmt, "bfloat16") != 0)
        return REFUSED;
    if (strcmp(values->type, "float32") != 0 || given->other || given->inputs != 1)
        return NOT_OURS;
    make_output(&outputs[0], "bfloat16", values->ndim, values->dims);
    for (size_t i = 0; i < values->count; i++)
        outputs[0].words[i] = bfloat16_of((uint32_t)values->words[i]);
    return 0;
}

static int answer(const case_t *given, array_t *outputs)
{
    if (strcmp(given->operation, "nf4.quantize") == 0)
        return quantize(given, outputs);
    if (strcmp(given->operation, "nf4.dequantize") == 0)
        return dequantize(given, outputs);
    if (strcmp(given->operation, "bfloat16.encode") == 0)
        return to_bfloat16(given, outputs);
    return NOT_OURS;
}

static void free_outputs(array_t *outputs)
{
    for (int i = 0; i < MOST_ARRAYS; i++)
        free(outputs[i].words);
}

static int pipe_through(FILE *in, FILE *out)
{
    case_t given;
    name_t word;
    while (next_token(in, word)) {
        array_t outputs[MOST_ARRAYS] = {0};
        if (strcmp(word, "case") != 0)
            fail("a case begins with the word case");
        read_case(in, &given, word);
        if (strcmp(word, "end") != 0)
            fail("a case ends with the word end");
        int code = answer(&given, outputs);
        fprintf(out, "answer %s\n", given.id);
        if (code)
            fprintf(out, "error %s\n", code == REFUSED ? "refused" : "this program cannot do that");
        for (int i = 0; !code && i < MOST_ARRAYS && outputs[i].words; i++)
            write_array(out, &outputs[i], strcmp(outputs[i].type, "uint8") == 0 ? 2 : outputs[i].type[0] == 'b' ? 4 : 8);
        fputs("end\n", out);
        free_outputs(outputs);
        free_case(&given);
    }
    return 0;
}

/* The integer order of a float format of 32 or 16 bits; every NaN is beyond all numbers. */
static int64_t ordinal(uint64_t word, int bits, uint64_t infinity)
{
    uint64_t magnitude = word & ((UINT64_C(1) << (bits - 1)) - 1);
    if (magnitude > infinity)
        return INT64_MAX;
    return word >> (bits - 1) ? -(int64_t)magnitude - 1 : (int64_t)magnitude;
}

static int64_t element(const array_t *output, const char *unit, const char *of, size_t i)
{
    if (strcmp(unit, "nibble") == 0)
        return qloracle_nf4_position[i % 2 ? output->words[i / 2] & 15 : output->words[i / 2] >> 4];
    if (strcmp(of, "float32") == 0)
        return ordinal(output->words[i], 32, QLORACLE_FLOAT32_INFINITY_BITS);
    if (strcmp(of, "bfloat16") == 0)
        return ordinal(output->words[i], 16, QLORACLE_BFLOAT16_INFINITY_BITS);
    return (int64_t)output->words[i]; /* of packing: bytes */
}

static int64_t *read_limits(FILE *in, size_t count)
{
    name_t text;
    int64_t *ordinals = allocated(count, sizeof *ordinals);
    for (size_t i = 0; i < count; i++)
        token(in, text); /* the words: this program needs the ordinals alone */
    for (size_t i = 0; i < count; i++) {
        token(in, text);
        ordinals[i] = strtoll(text, NULL, 10);
    }
    return ordinals;
}

/* Read one stage, and return whether the output leaves its limits. `exchanged` marks bytes that are packing's fault. */
static int stage_fails(FILE *in, const array_t *outputs, const array_t *right, name_t stage, uint8_t *exchanged)
{
    name_t clause, level, unit, of, form;
    token(in, stage), token(in, clause), token(in, level);
    size_t output = number(in);
    token(in, unit), token(in, of);
    size_t count = number(in);
    token(in, form);
    int64_t *lo = read_limits(in, count), *hi = strcmp(form, "between") == 0 ? read_limits(in, count) : lo;
    const array_t *got = &outputs[output];
    int same_shape = got->ndim == right[output].ndim && memcmp(got->dims, right[output].dims, got->ndim * sizeof *got->dims) == 0;
    int wrong = strcmp(got->type, right[output].type) != 0 || got->count != right[output].count || !same_shape;
    int comparable = !wrong;
    for (size_t i = 0; comparable && i < count; i++) {
        int64_t found = element(got, unit, of, i);
        if (strcmp(unit, "packing") == 0) {
            exchanged[i] = found != lo[i] && ((found & 15) << 4 | found >> 4) == lo[i];
            wrong |= exchanged[i];
        } else if (!(strcmp(unit, "nibble") == 0 && exchanged[i / 2])) {
            wrong |= found < lo[i] || found > hi[i];
        }
    }
    if (hi != lo)
        free(hi);
    free(lo);
    return wrong;
}

/* Compare one vector whose inputs were read; `word` holds the token after them. Returns 1 if a stage fails. */
static int compare(FILE *in, const case_t *given, name_t word, int code, const array_t *outputs)
{
    array_t right[MOST_ARRAYS] = {0};
    uint8_t *exchanged = NULL;
    int failing = 0, known = 0;
    if (strcmp(word, "error") == 0) {
        name_t kind, argument;
        token(in, kind), token(in, argument), token(in, word);
        if (code == 0)
            printf("FAIL %s refusal\n", given->id);
        return code == 0;
    }
    for (; strcmp(word, "output") == 0; token(in, word)) {
        if (known == MOST_ARRAYS)
            fail("too many outputs");
        read_array(in, &right[known++]);
    }
    exchanged = allocated(known ? right[0].count : 0, 1);
    for (; strcmp(word, "stage") == 0; token(in, word)) {
        name_t stage;
        if (stage_fails(in, outputs, right, stage, exchanged) && code == 0) {
            printf("FAIL %s %s\n", given->id, stage);
            failing = 1;
        }
    }
    if (code == REFUSED)
        printf("FAIL %s refusal\n", given->id);
    free(exchanged);
    free_outputs(right);
    return failing || code == REFUSED;
}

/* Read past a vector of an operation that has another number of outputs or of arrays than this program knows. */
static void skip_vector(FILE *in, name_t word)
{
    while (strcmp(word, "end") != 0)
        token(in, word);
}

static int check_vectors(const char *path, size_t *counts)
{
    case_t given;
    name_t word;
    int failing = 0;
    FILE *in = fopen(path, "r");
    if (!in)
        fail("a file of vectors cannot be opened");
    while (next_token(in, word)) {
        array_t outputs[MOST_ARRAYS] = {0};
        if (strcmp(word, "vector") != 0)
            fail("a vector begins with the word vector");
        read_case(in, &given, word);
        int code = answer(&given, outputs);
        if (code == NOT_OURS) {
            skip_vector(in, word);
            counts[1]++;
        } else {
            failing |= compare(in, &given, word, code, outputs);
            counts[0]++;
        }
        free_outputs(outputs);
        free_case(&given);
    }
    fclose(in);
    return failing;
}

int main(int argc, char **argv)
{
    size_t counts[2] = {0, 0};
    int failing = 0;
    if (argc == 2 && strcmp(argv[1], "pipe") == 0)
        return pipe_through(stdin, stdout);
    if (argc < 3 || strcmp(argv[1], "vectors") != 0)
        fail("usage: program pipe | program vectors FILE...");
    for (int i = 2; i < argc; i++)
        failing |= check_vectors(argv[i], counts);
    printf("%zu vectors compared, %zu of other operations or formats\n", counts[0], counts[1]);
    return failing;
}
