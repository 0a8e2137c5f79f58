/* Pillow's bilinear resize of 8-bit pixels, byte for byte.

   As in Pillow, each pass computes with weights of 22 bits behind the point and rounds to 8 bits. Pixels have four bytes;
   the fourth is resized as the others are. */

#define Py_LIMITED_API 0x030B0000
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define CHANNELS 4
#define BITS 22
#define HALF (1 << (BITS - 1))

#if defined(__x86_64__) && defined(__GNUC__)
#include <smmintrin.h>
#define SSE41 __attribute__((target("sse4.1")))
#endif

/* One function for CPUs with AVX2 and one for all others, chosen when the library is loaded. */
#if defined(__x86_64__) && defined(__gnu_linux__) && !defined(__clang__)
#define FOR_EACH_CPU __attribute__((target_clones("avx2", "default")))
#else
#define FOR_EACH_CPU
#endif

/* Weights of the input pixels of each output pixel along an axis: `count[x]` of them from `first[x]`. */
typedef struct {
    int in, out, most;
    int *first, *count;
    int32_t *weights; /* most for each output pixel */
} Axis;

static void free_axis(Axis *axis) {
    free(axis->first);
    free(axis->count);
    free(axis->weights);
}

static int make_axis(Axis *axis, int in, int out) {
    double scale = (double)in / out, support = scale < 1 ? 1 : scale, step = 1 / support;
    axis->in = in;
    axis->out = out;
    axis->most = 2 * (int)ceil(support) + 1;
    axis->first = malloc(sizeof(int) * out);
    axis->count = malloc(sizeof(int) * out);
    axis->weights = malloc(sizeof(int32_t) * out * axis->most);
    double *real = malloc(sizeof(double) * axis->most);
    int made = axis->first && axis->count && axis->weights && real;
    for (int x = 0; made && x < out; x++) {
        double center = (x + 0.5) * scale, sum = 0;
        int first = (int)(center - support + 0.5), end = (int)(center + support + 0.5);
        first = first < 0 ? 0 : first;
        end = end > in ? in : end;
        for (int i = first; i < end; i++) {
            double away = fabs((i - center + 0.5) * step);
            real[i - first] = away < 1 ? 1 - away : 0;
            sum += real[i - first];
        }
        axis->first[x] = first;
        axis->count[x] = end - first;
        for (int i = 0; i < end - first; i++)
            axis->weights[(size_t)x * axis->most + i] = (int32_t)(0.5 + real[i] / sum * (1 << BITS));
    }
    free(real);
    return made;
}

/* No sum exceeds 255 * 2^22 by as much as is rounded off: weights are positive, and add up to about 2^22. */

#ifdef SSE41
SSE41 static inline __m128i pixel_at(const uint8_t *place) {
    int32_t bytes;
    memcpy(&bytes, place, sizeof bytes);
    return _mm_cvtepu8_epi32(_mm_cvtsi32_si128(bytes));
}

SSE41 static void along_rows_sse41(const uint8_t *in, uint8_t *out, int rows, const Axis *axis) {
    for (int y = 0; y < rows; y++) {
        const uint8_t *row = in + (size_t)y * axis->in * CHANNELS;
        for (int x = 0; x < axis->out; x++, out += CHANNELS) {
            const uint8_t *pixel = row + (size_t)axis->first[x] * CHANNELS;
            const int32_t *weight = axis->weights + (size_t)x * axis->most, *end = weight + axis->count[x];
            __m128i sums = _mm_set1_epi32(HALF);
            for (; weight < end; weight++, pixel += CHANNELS)
                sums = _mm_add_epi32(sums, _mm_mullo_epi32(pixel_at(pixel), _mm_set1_epi32(*weight)));
            __m128i words = _mm_packus_epi32(_mm_srli_epi32(sums, BITS), _mm_setzero_si128());
            int32_t bytes = _mm_cvtsi128_si32(_mm_packus_epi16(words, words));
            memcpy(out, &bytes, sizeof bytes);
        }
    }
}
#endif

static void along_rows(const uint8_t *in, uint8_t *out, int rows, const Axis *axis) {
#ifdef SSE41
    if (__builtin_cpu_supports("sse4.1")) {
        along_rows_sse41(in, out, rows, axis);
        return;
    }
#endif
    for (int y = 0; y < rows; y++) {
        const uint8_t *row = in + (size_t)y * axis->in * CHANNELS;
        for (int x = 0; x < axis->out; x++, out += CHANNELS) {
            const uint8_t *pixel = row + (size_t)axis->first[x] * CHANNELS;
            const int32_t *weights = axis->weights + (size_t)x * axis->most;
            int32_t sums[CHANNELS] = {HALF, HALF, HALF, HALF};
            for (int i = 0; i < axis->count[x]; i++, pixel += CHANNELS)
                for (int c = 0; c < CHANNELS; c++) sums[c] += pixel[c] * weights[i];
            for (int c = 0; c < CHANNELS; c++) out[c] = (uint8_t)(sums[c] >> BITS);
        }
    }
}

FOR_EACH_CPU
static void along_columns(const uint8_t *restrict in, uint8_t *restrict out, int columns, const Axis *axis,
                          int32_t *restrict sums) {
    size_t stride = (size_t)columns * CHANNELS;
    for (int y = 0; y < axis->out; y++, out += stride) {
        const uint8_t *row = in + stride * axis->first[y];
        const int32_t *weights = axis->weights + (size_t)y * axis->most;
        int count = axis->count[y];
        if (count == 2) {
            int32_t a = weights[0], b = weights[1];
            const uint8_t *next = row + stride;
            for (size_t at = 0; at < stride; at++) out[at] = (uint8_t)((row[at] * a + next[at] * b + HALF) >> BITS);
            continue;
        }
        for (size_t at = 0; at < stride; at++) sums[at] = HALF;
        for (int i = 0; i < count; i++, row += stride) {
            int32_t weight = weights[i];
            for (size_t at = 0; at < stride; at++) sums[at] += row[at] * weight;
        }
        for (size_t at = 0; at < stride; at++) out[at] = (uint8_t)(sums[at] >> BITS);
    }
}

/* The order of the passes matters, since each rounds. Pillow 13 begins with the columns if the height shrinks by more
   than twice as many pixels as the width. */
static int begins_with_columns(const Axis *x, const Axis *y) {
    return y->in > y->out && y->in - y->out > 2 * (x->in - x->out);
}

static int resize_pixels(const uint8_t *in, uint8_t *out, const Axis *x, const Axis *y) {
    int by_rows = !begins_with_columns(x, y);
    size_t size = by_rows ? (size_t)x->out * y->in : (size_t)x->in * y->out;
    uint8_t *between = malloc(size * CHANNELS);
    int32_t *sums = malloc(sizeof(int32_t) * CHANNELS * (by_rows ? x->out : x->in));
    int made = between && sums;
    if (made && by_rows) {
        along_rows(in, between, y->in, x);
        along_columns(between, out, x->out, y, sums);
    } else if (made) {
        along_columns(in, between, x->in, y, sums);
        along_rows(between, out, y->out, x);
    }
    free(between);
    free(sums);
    return made;
}

static PyObject *resize(PyObject *self, PyObject *arguments) {
    (void)self;
    Py_buffer in, out;
    int width, height, new_width, new_height;
    if (!PyArg_ParseTuple(arguments, "y*(ii)w*(ii)", &in, &width, &height, &out, &new_width, &new_height)) return NULL;
    Axis x = {0}, y = {0};
    int fits = width > 0 && height > 0 && new_width > 0 && new_height > 0 &&
               in.len == (Py_ssize_t)width * height * CHANNELS && out.len == (Py_ssize_t)new_width * new_height * CHANNELS;
    int done = 0;
    if (fits) {
        Py_BEGIN_ALLOW_THREADS;
        done = make_axis(&x, width, new_width) && make_axis(&y, height, new_height) &&
               resize_pixels(in.buf, out.buf, &x, &y);
        Py_END_ALLOW_THREADS;
    }
    free_axis(&x);
    free_axis(&y);
    PyBuffer_Release(&in);
    PyBuffer_Release(&out);
    if (!fits) {
        PyErr_SetString(PyExc_ValueError, "a buffer is not of 4 bytes for each pixel of its size");
        return NULL;
    }
    if (!done) return PyErr_NoMemory();
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"resize", resize, METH_VARARGS,
     "resize(pixels, (width, height), out, (width, height))\n--\n\n"
     "Resize pixels of 4 bytes into another buffer, as Pillow's bilinear filter does.\n\n"
     "Raises:\n    ValueError: a buffer has another size.\n    MemoryError: there is not enough memory."},
    {NULL, NULL, 0, NULL}};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_resize", NULL, -1, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__resize(void) { return PyModule_Create(&module); }
