// BatchNorm, the sum with a residual and ReLU of bf16 maps, each pass at the speed of memory.
// norm_act.py has the equations, and calls the functions at the end.
//
// A map is channels-last: `pixels` rows of `channels` values. It is computed in float. What is
// summed over pixels is totalled in double by each thread for itself, in `totals` of
// (threads, 2, channels), so that the result does not depend on which thread ends first.

#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef uint16_t bf16;

enum { TILE = 64 };  // pixels whose sums are in float

#define INLINE static inline __attribute__((always_inline))

INLINE float widened(bf16 value) {
    union { uint32_t bits; float number; } wide = {(uint32_t)value << 16};
    return wide.number;
}

INLINE bf16 rounded(float number) {  // to the nearest, ties to even
    union { float number; uint32_t bits; } wide = {number};
    uint32_t nearest = (wide.bits + 0x7fff + (wide.bits >> 16 & 1)) >> 16;
    return number == number ? nearest : 0x7fc0;  // NaN
}

// Inlined with constants for what may be NULL, so that the inner loop does not ask.
INLINE void normalize_pixels(const bf16 *x, const bf16 *residual, const float *scale,
                             const float *offset, int64_t relu, int64_t pixels, int64_t channels,
                             bf16 *y) {
    for (int64_t at = 0; at < pixels * channels; at += channels)
#pragma omp simd
        for (int64_t c = 0; c < channels; c++) {
            float value = widened(x[at + c]) * scale[c] + offset[c];
            if (residual) value += widened(residual[at + c]);
            y[at + c] = rounded(relu && value < 0 ? 0 : value);
        }
}

static void normalize_range(const bf16 *x, const bf16 *residual, const float *scale,
                            const float *offset, int64_t relu, int64_t pixels, int64_t channels,
                            bf16 *y) {
    if (residual && relu)
        normalize_pixels(x, residual, scale, offset, 1, pixels, channels, y);
    else if (residual)
        normalize_pixels(x, residual, scale, offset, 0, pixels, channels, y);
    else if (relu)
        normalize_pixels(x, NULL, scale, offset, 1, pixels, channels, y);
    else
        normalize_pixels(x, NULL, scale, offset, 0, pixels, channels, y);
}

INLINE void sum_pixels(const bf16 *x, const bf16 *y, const bf16 *dy, const float *origin,
                       int64_t pixels, int64_t channels, bf16 *masked, float *restrict sum,
                       float *restrict product) {
    for (int64_t at = 0; at < pixels * channels; at += channels)
#pragma omp simd
        for (int64_t c = 0; c < channels; c++) {
            float apart = widened(x[at + c]) - origin[c], value = apart;
            if (dy) {
                bf16 slope = dy[at + c];
                if (y) masked[at + c] = slope = widened(y[at + c]) <= 0 ? 0 : slope;
                value = widened(slope);
            }
            sum[c] += value;
            product[c] += value * apart;
        }
}

static void sum_tile(const bf16 *x, const bf16 *y, const bf16 *dy, const float *origin,
                     int64_t pixels, int64_t channels, bf16 *masked, float *sum, float *product) {
    if (y)
        sum_pixels(x, y, dy, origin, pixels, channels, masked, sum, product);
    else if (dy)
        sum_pixels(x, NULL, dy, origin, pixels, channels, NULL, sum, product);
    else
        sum_pixels(x, NULL, NULL, origin, pixels, channels, NULL, sum, product);
}

static void differentiate_range(const bf16 *x, const bf16 *dy, const float *of_dy,
                               const float *of_x, const float *constant, int64_t pixels,
                               int64_t channels, bf16 *dx) {
    for (int64_t at = 0; at < pixels * channels; at += channels)
#pragma omp simd
        for (int64_t c = 0; c < channels; c++) {
            float slope = widened(dy[at + c]) * of_dy[c] + widened(x[at + c]) * of_x[c];
            dx[at + c] = rounded(slope + constant[c]);
        }
}

static int64_t share(int64_t pixels, int64_t thread, int64_t threads) {
    return pixels * thread / threads;
}

static void move_sums(float *sums, double *totals, int64_t count) {
    for (int64_t i = 0; i < count; i++) totals[i] += sums[i];
    memset(sums, 0, count * sizeof *sums);
}

// y = x * scale + offset + residual, or ReLU of it.
void normalize(const bf16 *x, const bf16 *residual, const float *scale, const float *offset,
               int64_t relu, int64_t pixels, int64_t channels, int64_t threads, bf16 *y) {
#pragma omp parallel for num_threads(threads)
    for (int64_t thread = 0; thread < threads; thread++) {
        int64_t start = share(pixels, thread, threads), at = start * channels;
        normalize_range(x + at, residual ? residual + at : NULL, scale, offset, relu,
                        share(pixels, thread + 1, threads) - start, channels, y + at);
    }
}

// Totals of dy and of dy * (x - origin). Given y, dy counts where ReLU let it pass: `masked`.
// Without dy, of x - origin and of its square.
void totalize(const bf16 *x, const bf16 *y, const bf16 *dy, const float *origin, int64_t pixels,
              int64_t channels, int64_t threads, bf16 *masked, double *totals) {
#pragma omp parallel for num_threads(threads)
    for (int64_t thread = 0; thread < threads; thread++) {
        float sums[2 * channels];
        memset(sums, 0, sizeof sums);
        int64_t end = share(pixels, thread + 1, threads);
        for (int64_t tile = share(pixels, thread, threads); tile < end; tile += TILE) {
            int64_t at = tile * channels, count = end - tile < TILE ? end - tile : TILE;
            sum_tile(x + at, y ? y + at : NULL, dy ? dy + at : NULL, origin, count, channels,
                     y ? masked + at : NULL, sums, sums + channels);
            move_sums(sums, totals + 2 * channels * thread, 2 * channels);
        }
    }
}

// dx = dy * of_dy + x * of_x + constant; dx may be dy.
void differentiate(const bf16 *x, const bf16 *dy, const float *of_dy, const float *of_x,
                   const float *constant, int64_t pixels, int64_t channels, int64_t threads,
                   bf16 *dx) {
#pragma omp parallel for num_threads(threads)
    for (int64_t thread = 0; thread < threads; thread++) {
        int64_t start = share(pixels, thread, threads), at = start * channels;
        differentiate_range(x + at, dy + at, of_dy, of_x, constant,
                            share(pixels, thread + 1, threads) - start, channels, dx + at);
    }
}
