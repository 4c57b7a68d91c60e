/* What the eager code does on a CPU in many steps, each over a whole piece, in one loop that reads memory once.
 *
 * The rules stand in the Python code beside each call; every number here is rounded where it is rounded there, so that
 * the bits are the same (but for those of a NaN). Compiled without contraction and without any other licence.
 * Rows are contiguous; a step of 0 repeats a value for every row or column.
 */
#include <math.h>
#include <stdint.h>
#include <string.h>

#define UNDECIDED INT16_MIN
#define CHUNK 512 /* places between two passes, in the first-level cache */

typedef uint16_t float16, bfloat16; /* bit patterns */

static inline float float_of_word(uint32_t word) {
  float value;
  memcpy(&value, &word, sizeof value);
  return value;
}

static inline uint32_t word_of_float(float value) {
  uint32_t word;
  memcpy(&word, &value, sizeof word);
  return word;
}

static inline float widened_float32(float value) { return value; }

static inline float widened_float16(float16 bits) {
  uint32_t magnitude = bits & 0x7FFF, sign = (uint32_t)(bits & 0x8000) << 16;
  float finite = float_of_word(magnitude << 13) * 0x1p112f; /* exact, and so for subnormals */
  uint32_t word = magnitude < 0x7C00 ? word_of_float(finite) : 0x7F800000 | magnitude << 13;
  return float_of_word(sign | word);
}

static inline float widened_bfloat16(bfloat16 bits) { return float_of_word((uint32_t)bits << 16); }

static inline float rounded_float32(float value) { return value; }

static inline float16 rounded_float16(float value) {
  _Float16 nearest = (_Float16)value;
  float16 bits;
  memcpy(&bits, &nearest, sizeof bits);
  return bits;
}

static inline bfloat16 rounded_bfloat16(float value) {
  uint32_t word = word_of_float(value);
  uint32_t nearest = (word + 0x7FFF + ((word >> 16) & 1)) >> 16; /* ties to the even pattern */
  uint32_t quiet = (word >> 16) | 0x40;                          /* a NaN stays one whatever its payload */
  return (bfloat16)((word & 0x7FFFFFFF) > 0x7F800000 ? quiet : nearest);
}

/* The largest magnitude of every row, NaN where one is not finite: magnitudes compare as their words do. */
#define DEFINE_ROW_ABSMAX(FORMAT, TYPE, WORD, MAGNITUDE, INFINITE)                                                   \
  void row_absmax_##FORMAT(const WORD *words, int64_t rows, int64_t columns, float *absmax) {                        \
    for (int64_t row = 0; row < rows; row++, words += columns) {                                                     \
      WORD largest = 0;                                                                                              \
      for (int64_t column = 0; column < columns; column++) {                                                         \
        WORD magnitude = words[column] & MAGNITUDE;                                                                  \
        largest = magnitude > largest ? magnitude : largest;                                                         \
      }                                                                                                              \
      TYPE value;                                                                                                    \
      memcpy(&value, &largest, sizeof value);                                                                        \
      absmax[row] = largest < INFINITE ? widened_##FORMAT(value) : NAN;                                              \
    }                                                                                                                \
  }

/* The cell of a quotient: one that is NaN, from infinity over infinity, counts as zero; one beyond 1 as 1. */
static inline int32_t place_of(float quotient, float aside, float middle) {
  float number = quotient == quotient ? quotient : 0.0f, root = sqrtf(fabsf(number));
  return (int32_t)(copysignf(root < 1.0f ? root : 1.0f, number) * aside + middle);
}

/* The code of every quotient's cell; the positions of those that this leaves undecided, whose number it returns. */
#define DEFINE_GUESS(FORMAT, TYPE)                                                                                   \
  int64_t guess_##FORMAT(const TYPE *x, const float *divisors, int64_t row_step, int64_t column_step,                \
                         const int16_t *cells, int64_t cells_aside, int64_t rows, int64_t columns, uint8_t *codes,   \
                         int64_t *undecided) {                                                                       \
    int64_t found = 0, position = 0;                                                                                 \
    const float aside = (float)cells_aside, middle = (float)(cells_aside + 1);                                       \
    int32_t places[CHUNK];                                                                                           \
    for (int64_t row = 0; row < rows; row++) {                                                                       \
      const float *divisor = divisors + row * row_step;                                                              \
      for (int64_t start = 0; start < columns; start += CHUNK) {                                                     \
        int64_t count = columns - start < CHUNK ? columns - start : CHUNK;                                           \
        if (column_step == 0) /* apart, so that a compiler can keep the divisor */                                   \
          for (int64_t i = 0; i < count; i++)                                                                        \
            places[i] = place_of(widened_##FORMAT(x[position + i]) / *divisor, aside, middle);                       \
        else                                                                                                         \
          for (int64_t i = 0; i < count; i++)                                                                        \
            places[i] = place_of(widened_##FORMAT(x[position + i]) / divisor[(start + i) * column_step], aside,      \
                                 middle);                                                                            \
        for (int64_t i = 0; i < count; i++) {                                                                        \
          int16_t code = cells[places[i]];                                                                           \
          codes[position + i] = (uint8_t)code;                                                                       \
          undecided[found] = position + i;                                                                           \
          found += code == UNDECIDED;                                                                                \
        }                                                                                                            \
        position += count;                                                                                           \
      }                                                                                                              \
    }                                                                                                                \
    return found;                                                                                                    \
  }

/* An entry times the absmax of its block; +0 where that is 0. */
static inline float value_of(float entry, float scale) {
  float product = entry * scale;
  return scale == 0.0f ? 0.0f : product;
}

/* Values of pairs of codes from the even position i on, as many as go at once; returns the position after them. Sixteen
 * bytes of a table are looked up by one instruction, which pays for values of two bytes, not for those of four.
 */
#if defined(__GNUC__) && !defined(__clang__) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
typedef uint8_t bytes16 __attribute__((vector_size(16)));
#define INTERLEAVED_LOW (bytes16){0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23}
#define INTERLEAVED_HIGH (bytes16){8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31}

static inline void look_up_16(bytes16 codes, bytes16 low, bytes16 high, uint16_t *values) {
  bytes16 lower = __builtin_shuffle(low, codes), upper = __builtin_shuffle(high, codes);
  bytes16 first = __builtin_shuffle(lower, upper, INTERLEAVED_LOW);
  bytes16 second = __builtin_shuffle(lower, upper, INTERLEAVED_HIGH);
  memcpy(values, &first, sizeof first);
  memcpy(values + 8, &second, sizeof second);
}

static inline int64_t look_up_2byte(const uint8_t *bytes, const uint16_t *table, int64_t i, int64_t stop,
                                    uint16_t *values) {
  uint8_t halves[2][16];
  bytes16 low, high, pairs;
  for (int code = 0; code < 16; code++) {
    halves[0][code] = (uint8_t)table[code];
    halves[1][code] = (uint8_t)(table[code] >> 8);
  }
  memcpy(&low, halves[0], sizeof low);
  memcpy(&high, halves[1], sizeof high);
  for (; i + 32 <= stop; i += 32) {
    memcpy(&pairs, bytes + i / 2, sizeof pairs);
    bytes16 first = pairs >> 4, second = pairs & 15;
    look_up_16(__builtin_shuffle(first, second, INTERLEAVED_LOW), low, high, values + i);
    look_up_16(__builtin_shuffle(first, second, INTERLEAVED_HIGH), low, high, values + i + 16);
  }
  return i;
}

#define LOOK_UP_float16 look_up_2byte
#define LOOK_UP_bfloat16 look_up_2byte
#else
#define LOOK_UP_float16(bytes, table, i, stop, values) (i)
#define LOOK_UP_bfloat16(bytes, table, i, stop, values) (i)
#endif
#define LOOK_UP_float32(bytes, table, i, stop, values) (i)

/* Packed codes, the first of two in the high nibble: the sixteen values of a block are made first, then looked up. */
#define DEFINE_DEQUANTIZE_4BIT(FORMAT, TYPE)                                                                         \
  void dequantize_4bit_##FORMAT(const uint8_t *bytes, const float *entries, const float *absmax, int64_t block_size, \
                                int64_t count, TYPE *values) {                                                       \
    for (int64_t start = 0; start < count; start += block_size, absmax++) {                                          \
      TYPE table[16];                                                                                                \
      for (int code = 0; code < 16; code++) table[code] = rounded_##FORMAT(value_of(entries[code], *absmax));        \
      int64_t stop = count - start < block_size ? count : start + block_size, i = start;                             \
      if (i % 2 && i < stop) values[i] = table[bytes[i / 2] & 15], i++;                                              \
      i = LOOK_UP_##FORMAT(bytes, table, i, stop, values);                                                           \
      for (; i + 1 < stop; i += 2) {                                                                                 \
        uint8_t byte = bytes[i / 2];                                                                                 \
        values[i] = table[byte >> 4];                                                                                \
        values[i + 1] = table[byte & 15];                                                                            \
      }                                                                                                              \
      if (i < stop) values[i] = table[bytes[i / 2] >> 4];                                                            \
    }                                                                                                                \
  }

#define DEFINE_DEQUANTIZE_8BIT(FORMAT, TYPE)                                                                         \
  void dequantize_8bit_##FORMAT(const uint8_t *codes, const float *entries, const float *absmax, int64_t block_size, \
                                int64_t count, TYPE *values) {                                                       \
    for (int64_t start = 0; start < count; start += block_size, absmax++) {                                          \
      int64_t stop = count - start < block_size ? count : start + block_size;                                        \
      for (int64_t i = start; i < stop; i++) values[i] = rounded_##FORMAT(value_of(entries[codes[i]], *absmax));     \
    }                                                                                                                \
  }

/* code · absmax / 127, the product exact and the quotient rounded to float64, which decides the float32 rounding. */
#define DEFINE_DEQUANTIZE_INT8(FORMAT, TYPE)                                                                         \
  void dequantize_int8_##FORMAT(const int8_t *codes, const float *absmax, int64_t row_step, int64_t column_step,     \
                                int64_t rows, int64_t columns, TYPE *values) {                                       \
    for (int64_t row = 0; row < rows; row++, codes += columns, values += columns) {                                  \
      const float *scales = absmax + row * row_step;                                                                 \
      for (int64_t column = 0; column < columns; column++) {                                                         \
        double quotient = codes[column] * (double)scales[column * column_step] / 127.0;                              \
        values[column] = rounded_##FORMAT((float)(quotient + 0.0)); /* -0 becomes +0 */                              \
      }                                                                                                              \
    }                                                                                                                \
  }

/* Rows of x times rows of a weight in packed codes: one instruction looks up sixteen codes, and each of sixteen lanes
 * sums up in float32. Every 32 places of x hold the even ones first; blocks are whole multiples of 32. Values are those
 * of `dequantize_4bit`, rounded to a format.
 */
#if defined(__GNUC__) && !defined(__clang__) && defined(__AVX512F__)
typedef float floats16 __attribute__((vector_size(64)));
typedef uint32_t words16 __attribute__((vector_size(64)));
#define ROWS_AT_ONCE 4

static inline floats16 load_16(const float *values) {
  floats16 found;
  memcpy(&found, values, sizeof found);
  return found;
}

/* Sixteen values after their rounding to a format, as `rounded_bfloat16` does it. */
static inline floats16 passed_float32(floats16 values) { return values; }

static inline floats16 passed_bfloat16(floats16 values) {
  words16 words, nearest, nan;
  memcpy(&words, &values, sizeof words);
  nearest = words + 0x7FFF + ((words >> 16) & 1);
  nan = (words16)((words & 0x7FFFFFFF) > 0x7F800000);
  nearest = ((nan & (words | 0x400000)) | (~nan & nearest)) & 0xFFFF0000;
  memcpy(&values, &nearest, sizeof values);
  return values;
}

static inline float sum_of_16(floats16 values) {
  float sum = 0;
  for (int i = 0; i < 16; i++) sum += values[i];
  return sum;
}

#define DEFINE_PRODUCT_4BIT(FORMAT)                                                                                  \
  static inline __attribute__((always_inline)) void rows_product_##FORMAT(                                           \
      int rows, const uint8_t *bytes, const float *entries, const float *absmax, int64_t block_size, const float *x, \
      int64_t inner, int64_t outputs, float *y, int64_t y_step) {                                                    \
    for (int64_t output = 0; output < outputs; output++) {                                                           \
      floats16 sums[ROWS_AT_ONCE][2] = {{{0}}}, all = load_16(entries);                                              \
      for (int64_t start = 0; start < inner; start += block_size, absmax++) {                                        \
        floats16 values = *absmax == 0.0f ? (floats16){0} : passed_##FORMAT(all * *absmax);                          \
        for (int64_t i = start; i < start + block_size; i += 32, bytes += 16) {                                      \
          uint32_t wide[16];                                                                                         \
          words16 pairs;                                                                                             \
          for (int k = 0; k < 16; k++) wide[k] = bytes[k];                                                           \
          memcpy(&pairs, wide, sizeof pairs);                                                                        \
          floats16 even = __builtin_shuffle(values, pairs >> 4), odd = __builtin_shuffle(values, pairs & 15);        \
          for (int row = 0; row < rows; row++) {                                                                     \
            sums[row][0] += even * load_16(x + row * inner + i);                                                     \
            sums[row][1] += odd * load_16(x + row * inner + i + 16);                                                 \
          }                                                                                                          \
        }                                                                                                            \
      }                                                                                                              \
      for (int row = 0; row < rows; row++) y[row * y_step + output] = sum_of_16(sums[row][0] + sums[row][1]);        \
    }                                                                                                                \
  }                                                                                                                  \
  void product_4bit_##FORMAT(const uint8_t *bytes, const float *entries, const float *absmax, int64_t block_size,    \
                             const float *x, int64_t rows, int64_t inner, int64_t outputs, float *y,                 \
                             int64_t y_step) {                                                                       \
    for (; rows >= ROWS_AT_ONCE; rows -= ROWS_AT_ONCE, x += ROWS_AT_ONCE * inner, y += ROWS_AT_ONCE * y_step)        \
      rows_product_##FORMAT(ROWS_AT_ONCE, bytes, entries, absmax, block_size, x, inner, outputs, y, y_step);         \
    for (; rows > 0; rows--, x += inner, y += y_step)                                                                \
      rows_product_##FORMAT(1, bytes, entries, absmax, block_size, x, inner, outputs, y, y_step);                    \
  }
DEFINE_PRODUCT_4BIT(float32)
DEFINE_PRODUCT_4BIT(bfloat16)
#endif

#define DEFINE_ALL(FORMAT, TYPE, WORD, MAGNITUDE, INFINITE)    \
  DEFINE_ROW_ABSMAX(FORMAT, TYPE, WORD, MAGNITUDE, INFINITE)   \
  DEFINE_GUESS(FORMAT, TYPE)                                   \
  DEFINE_DEQUANTIZE_4BIT(FORMAT, TYPE)                         \
  DEFINE_DEQUANTIZE_8BIT(FORMAT, TYPE)                         \
  DEFINE_DEQUANTIZE_INT8(FORMAT, TYPE)

DEFINE_ALL(float32, float, uint32_t, 0x7FFFFFFF, 0x7F800000)
DEFINE_ALL(float16, float16, uint16_t, 0x7FFF, 0x7C00)
DEFINE_ALL(bfloat16, bfloat16, uint16_t, 0x7FFF, 0x7F80)

/* Words of an 8-bit format: its rounding looks at the high half of a float32 and at whether the low half is zero. */
void encode_8bit(const uint32_t *words, const uint8_t *table, int64_t count, uint8_t *codes) {
  for (int64_t i = 0; i < count; i++) codes[i] = table[(words[i] >> 16 << 1) | ((words[i] & 0xFFFF) != 0)];
}
