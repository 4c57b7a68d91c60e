/* Reading cases and vectors, token by token; writing arrays. Anything unexpected ends the program. */
#ifndef CASES_H
#define CASES_H

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NAME_SIZE 256
#define MOST_AXES 8
#define MOST_ARRAYS 16

typedef char name_t[NAME_SIZE];

typedef struct {
    name_t name, type; /* type "none": left out */
    size_t ndim, dims[MOST_AXES], count;
    uint64_t *words;
} array_t;

typedef struct {
    name_t id, operation, function, codebook, dtype, fmt;
    long block_size;
    size_t size; /* product of the option shape */
    size_t shape_ndim, shape[MOST_AXES];
    size_t inputs;
    array_t input[MOST_ARRAYS];
    int other; /* an option was given that this program does not know */
} case_t;

static void fail(const char *what)
{
    fprintf(stderr, "program: %s\n", what);
    exit(3);
}

static int next_token(FILE *in, name_t token)
{
    return fscanf(in, "%255s", token) == 1;
}

static void token(FILE *in, name_t into)
{
    if (!next_token(in, into))
        fail("the cases end inside one");
}

static size_t number(FILE *in)
{
    name_t text;
    token(in, text);
    return (size_t)strtoull(text, NULL, 10);
}

static void read_words(FILE *in, uint64_t *words, size_t count)
{
    name_t text;
    for (size_t i = 0; i < count; i++) {
        token(in, text);
        words[i] = strtoull(text, NULL, 16);
    }
}

static void *allocated(size_t count, size_t width)
{
    void *memory = calloc(count ? count : 1, width);
    if (!memory)
        fail("out of memory");
    return memory;
}

static void read_array(FILE *in, array_t *array)
{
    token(in, array->type);
    array->ndim = array->count = 0;
    array->words = NULL;
    if (strcmp(array->type, "none") == 0)
        return;
    array->ndim = number(in);
    if (array->ndim > MOST_AXES)
        fail("too many axes");
    array->count = 1;
    for (size_t i = 0; i < array->ndim; i++)
        array->count *= array->dims[i] = number(in);
    array->words = allocated(array->count, sizeof *array->words);
    read_words(in, array->words, array->count);
}

static void read_list(FILE *in, case_t *into, int shape)
{
    name_t item;
    size_t count = number(in);
    for (size_t i = 0; i < count; i++) {
        token(in, item);
        if (shape && i < MOST_AXES)
            into->size *= into->shape[i] = (size_t)strtoull(item, NULL, 10);
    }
    if (shape)
        into->shape_ndim = count;
}

static void read_option(FILE *in, case_t *into)
{
    name_t name, kind, value;
    token(in, name);
    token(in, kind);
    if (strcmp(kind, "none") == 0) {
        into->other = 1;
    } else if (kind[strlen(kind) - 1] == 's') {
        into->size = 1;
        read_list(in, into, strcmp(name, "shape") == 0);
    } else {
        token(in, value);
        if (strcmp(name, "block_size") == 0)
            into->block_size = strtol(value, NULL, 10);
        else if (strcmp(name, "codebook") == 0)
            strcpy(into->codebook, value);
        else if (strcmp(name, "dtype") == 0)
            strcpy(into->dtype, value);
        else if (strcmp(name, "fmt") == 0)
            strcpy(into->fmt, value);
        else
            into->other = 1;
    }
}

/* Read options and inputs of a case whose first word was read; the token after them is left in `after`. */
static void read_case(FILE *in, case_t *into, name_t after)
{
    memset(into, 0, sizeof *into);
    token(in, into->id);
    token(in, into->operation);
    token(in, into->function);
    for (token(in, after);; token(in, after)) {
        if (strcmp(after, "option") == 0) {
            read_option(in, into);
        } else if (strcmp(after, "input") == 0) {
            if (into->inputs == MOST_ARRAYS)
                fail("too many inputs");
            token(in, into->input[into->inputs].name);
            read_array(in, &into->input[into->inputs++]);
        } else if (strcmp(after, "source") == 0) { /* of a vector: where its case comes from */
            for (int i = 0; i < 6; i++)
                token(in, after);
        } else if (strcmp(after, "flags") == 0) { /* of a vector: the mistakes that it hunts */
            for (size_t left = number(in); left; left--)
                token(in, after);
        } else {
            return;
        }
    }
}

static void free_case(case_t *of)
{
    for (size_t i = 0; i < of->inputs; i++)
        free(of->input[i].words);
}

static const array_t *input_named(const case_t *of, const char *name)
{
    for (size_t i = 0; i < of->inputs; i++)
        if (strcmp(of->input[i].name, name) == 0)
            return &of->input[i];
    return NULL;
}

static void write_array(FILE *out, const array_t *array, int digits)
{
    fprintf(out, "output %s %zu", array->type, array->ndim);
    for (size_t i = 0; i < array->ndim; i++)
        fprintf(out, " %zu", array->dims[i]);
    for (size_t i = 0; i < array->count; i++)
        fprintf(out, "%c%0*" PRIx64, i % 16 ? ' ' : '\n', digits, array->words[i]);
    fputc('\n', out);
}

#endif
