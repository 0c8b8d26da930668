// An image encoder's convolutions and batch norms, forward and backward, in REAL (float; double where it is proven).
//
// Images stand in blocks of 16, the images innermost: an activation is [N blocks, channels, rows, columns, 16], so that
// no kernel shuffles inside a vector and every pixel of a border is like any other. What a convolution reads has its
// border of zeros in memory. Each distinct image of a batch stands there once; weight [N * 16] says how often the batch
// has it, 0 in columns that hold none. Gradients of an image are the sums over its copies.
// Sums over pixels and images are added up in double, block by block.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <type_traits>
#include <vector>

#define KERNEL extern "C" void
constexpr long BLOCK = 16;
#if defined(__AVX512F__)
constexpr long BYTES = 64;
#elif defined(__AVX2__)
constexpr long BYTES = 32;
#else
constexpr long BYTES = 16;
#endif
constexpr long VECTOR = BYTES / sizeof(REAL), VECTORS = BLOCK / VECTOR;
constexpr long TILE = 56;  // pixels between two visits of an accumulator in memory, at least

typedef REAL vec __attribute__((vector_size(BYTES), may_alias));

static inline vec &at(REAL *p) { return *reinterpret_cast<vec *>(p); }
static inline const vec &at(const REAL *p) { return *reinterpret_cast<const vec *>(p); }
typedef std::conditional<sizeof(REAL) == 4, int32_t, int64_t>::type whole;
typedef whole wholes __attribute__((vector_size(BYTES)));
typedef uint8_t bytes __attribute__((vector_size(VECTOR), may_alias, aligned(1)));
static inline wholes wide(const uint8_t *p) {
  return __builtin_convertvector(*reinterpret_cast<const bytes *>(p), wholes);
}
static inline vec all(REAL x) { return x - vec{}; }
// Where whole vectors begin in it; it has BLOCK numbers more than are needed.
static REAL *begin_of(std::vector<REAL> &storage) {
  return reinterpret_cast<REAL *>((reinterpret_cast<uintptr_t>(storage.data()) + 63) / 64 * 64);
}
static inline double sum(const vec &v) {
  double total = 0;
  for (long col = 0; col < VECTOR; ++col) total += v[col];
  return total;
}

// A weight [Co, Ci, K, K] with its outputs last, [Ci, K, K, Co]; or to go back by, [Co, K, K, Ci].
static std::vector<REAL> packed(const REAL *weight, long Ci, long Co, long K, bool forward) {
  std::vector<REAL> found(Co * Ci * K * K);
  for (long o = 0; o < Co; ++o)
    for (long i = 0; i < Ci; ++i)
      for (long k = 0; k < K * K; ++k)
        found[forward ? (i * K * K + k) * Co + o : (o * K * K + k) * Ci + i] = weight[(o * Ci + i) * K * K + k];
  return found;
}

// ROWS channels of one pixel: out[r] (apart by `apart`) (+)= sum over ky, kx, c of weight * in.
template <long ROWS>
static inline void pixel(REAL *out, long apart, const REAL *in, long C, long channel, long side, long Ky, long Kx,
                         long step_y, long step_x, const REAL *weight, long weight_c, long weight_y, long weight_x,
                         bool add) {
  vec total[ROWS][VECTORS];
  for (long r = 0; r < ROWS; ++r)
    for (long v = 0; v < VECTORS; ++v) total[r][v] = add ? at(out + r * apart + v * VECTOR) : all(0);
  for (long c = 0; c < C; ++c)
    for (long ky = 0; ky < Ky; ++ky) {
      const REAL *x = in + c * channel + ky * step_y * side * BLOCK;
      const REAL *w = weight + c * weight_c + ky * weight_y;
      for (long kx = 0; kx < Kx; ++kx, x += step_x * BLOCK, w += weight_x)
        for (long r = 0; r < ROWS; ++r)
          for (long v = 0; v < VECTORS; ++v) total[r][v] += w[r] * at(x + v * VECTOR);
    }
  for (long r = 0; r < ROWS; ++r)
    for (long v = 0; v < VECTORS; ++v) at(out + r * apart + v * VECTOR) = total[r][v];
}

static inline void pixel_of_all(long rows, REAL *out, long apart, const REAL *in, long C, long channel, long side,
                                long Ky, long Kx, long step_y, long step_x, const REAL *weight, long weight_c,
                                long weight_y, long weight_x, bool add) {
  long r = 0;
  // Twelve sums at once keep both multipliers busy and fit the sixteen registers that there are at least.
  for (; r + 6 <= rows; r += 6)
    pixel<6>(out + r * apart, apart, in, C, channel, side, Ky, Kx, step_y, step_x, weight + r, weight_c, weight_y,
             weight_x, add);
  for (; r + 4 <= rows; r += 4)
    pixel<4>(out + r * apart, apart, in, C, channel, side, Ky, Kx, step_y, step_x, weight + r, weight_c, weight_y,
             weight_x, add);
  for (; r < rows; ++r)
    pixel<1>(out + r * apart, apart, in, C, channel, side, Ky, Kx, step_y, step_x, weight + r, weight_c, weight_y,
             weight_x, add);
}

// out [N, Co, So, So, 16] from in [N, Ci, Si, Si, 16], its border included; weight [Co, Ci, K, K].
KERNEL convolve(REAL *out, const REAL *in, const REAL *weight, long N, long Ci, long Co, long Si, long So, long K,
                long stride) {
  const std::vector<REAL> outputs_last = packed(weight, Ci, Co, K, true);
  for (long n = 0; n < N; ++n)
    for (long y = 0; y < So; ++y)
      for (long x = 0; x < So; ++x)
        pixel_of_all(Co, out + ((n * Co * So + y) * So + x) * BLOCK, So * So * BLOCK,
                     in + ((n * Ci * Si + y * stride) * Si + x * stride) * BLOCK, Ci, Si * Si * BLOCK, Si, K, K, 1, 1,
                     outputs_last.data(), K * K * Co, K * Co, Co, false);
}

// Gradient of `in`, of the border too, from that of `out`; weight [Co, Ci, K, K]. add: to what stands there.
KERNEL convolve_backward(REAL *in, const REAL *out, const REAL *weight, long N, long Ci, long Co, long Si, long So,
                         long K, long stride, long add) {
  const std::vector<REAL> inputs_last = packed(weight, Ci, Co, K, false);
  for (long n = 0; n < N; ++n)
    for (long y = 0; y < Si; ++y)
      for (long x = 0; x < Si; ++x) {
        // Output row oy reads this one by ky = y - oy * stride, if that is in the kernel. Rows go back as ky grows.
        const long high_y = std::min(y / stride, So - 1), high_x = std::min(x / stride, So - 1);
        const long low_y = std::max(0L, (y - K + stride) / stride), low_x = std::max(0L, (x - K + stride) / stride);
        const long Ky = std::max(0L, high_y - low_y + 1), Kx = std::max(0L, high_x - low_x + 1);
        REAL *to = in + ((n * Ci * Si + y) * Si + x) * BLOCK;
        const REAL *from = out + ((n * Co * So + high_y) * So + high_x) * BLOCK;
        const REAL *w = inputs_last.data() + ((y - high_y * stride) * K + x - high_x * stride) * Ci;
        pixel_of_all(Ci, to, Si * Si * BLOCK, from, Ky && Kx ? Co : 0, So * So * BLOCK, So, Ky, Kx, -1, -1, w,
                     K * K * Ci, stride * K * Ci, stride * Ci, add);
      }
}

// Products of rows a and rows b of images, summed over pixels; a pixel (y, x) of a row is at y * y_step + x * x_step.
struct Rows {
  const REAL *base;
  std::vector<long> offset;
  long y_step, x_step;
};

template <long A, long B>
static inline void products(vec *total, long apart, const REAL *const *a, const REAL *const *b, const Rows &of_a,
                            const Rows &of_b, long first, long last, long So) {
  vec found[A][B];
  for (long i = 0; i < A; ++i)
    for (long j = 0; j < B; ++j) found[i][j] = total[i * apart + j];
  for (long y = first; y < last; ++y) {
    long to_a = (y - first) * of_a.y_step, to_b = y * of_b.y_step;
    for (long x = 0; x < So; ++x, to_a += of_a.x_step, to_b += of_b.x_step)
      for (long v = 0; v < VECTORS; ++v)
        for (long j = 0; j < B; ++j) {
          const vec right = at(b[j] + to_b + v * VECTOR);
          for (long i = 0; i < A; ++i) found[i][j] += at(a[i] + to_a + v * VECTOR) * right;
        }
  }
  for (long i = 0; i < A; ++i)
    for (long j = 0; j < B; ++j) total[i * apart + j] = found[i][j];
}

// total [rows of a, rows of b] += products over pixel rows first … last; `a` begins at row `first`. upper: where the
// row of b is not before that of a alone.
static void all_products(vec *total, const Rows &a, const Rows &b, long first, long last, long So, bool upper) {
  const long n_a = a.offset.size(), n_b = b.offset.size();
  for (long i = 0; i < n_a;) {
    const long many = i + 4 <= n_a ? 4 : 1;
    const REAL *left[4];
    for (long k = 0; k < many; ++k) left[k] = a.base + a.offset[i + k];
    for (long j = upper ? i / 3 * 3 : 0; j < n_b;) {
      const long wide = j + 3 <= n_b ? 3 : 1;
      const REAL *right[3];
      for (long k = 0; k < wide; ++k) right[k] = b.base + b.offset[j + k];
      vec *to = total + i * n_b + j;
      if (many == 4 && wide == 3) products<4, 3>(to, n_b, left, right, a, b, first, last, So);
      else if (many == 4) products<4, 1>(to, n_b, left, right, a, b, first, last, So);
      else if (wide == 3) products<1, 3>(to, n_b, left, right, a, b, first, last, So);
      else products<1, 1>(to, n_b, left, right, a, b, first, last, So);
      j += wide;
    }
    i += many;
  }
}

static void flush(double *to, std::vector<vec> &total) {
  for (size_t i = 0; i < total.size(); ++i) to[i] += sum(total[i]), total[i] = all(0);
}

// The rows of an input that a kernel's taps read, in the order channel, ky, kx.
static Rows taps(const REAL *in, long Ci, long Si, long K, long stride) {
  Rows rows{in, {}, stride * Si * BLOCK, stride * BLOCK};
  for (long c = 0; c < Ci; ++c)
    for (long ky = 0; ky < K; ++ky)
      for (long kx = 0; kx < K; ++kx) rows.offset.push_back(((c * Si + ky) * Si + kx) * BLOCK);
  return rows;
}

static std::vector<long> channels(long C, long pixels) {
  std::vector<long> offset(C);
  for (long c = 0; c < C; ++c) offset[c] = c * pixels * BLOCK;
  return offset;
}

static inline long tile_rows(long So) { return std::max(1L, TILE / So); }

// gradient [Co, Ci, K, K] of a convolution's weight.
KERNEL weight_backward(REAL *gradient, const REAL *out, const REAL *in, long N, long Ci, long Co, long Si, long So,
                       long K, long stride) {
  std::vector<double> found(Co * Ci * K * K, 0.0);
  std::vector<vec> total(found.size(), all(0));
  Rows right = taps(in, Ci, Si, K, stride), left{out, channels(Co, So * So), So * BLOCK, BLOCK};
  for (long n = 0; n < N; ++n) {
    right.base = in + n * Ci * Si * Si * BLOCK;
    for (long first = 0; first < So; first += tile_rows(So)) {
      left.base = out + (n * Co * So + first) * So * BLOCK;
      all_products(total.data(), left, right, first, std::min(So, first + tile_rows(So)), So, false);
    }
    flush(found.data(), total);
  }
  std::copy(found.begin(), found.end(), gradient);
}

// What a batch norm goes by: 1 / standard deviation [C], of biased variances.
KERNEL inverses(double *inverse, const double *variance, double epsilon, long C) {
  for (long c = 0; c < C; ++c) inverse[c] = 1 / std::sqrt(variance[c] + epsilon);
}

// Mean and biased variance of each channel of y [N, C, pixels, 16] over `count` images; weight [N * 16].
KERNEL statistics(double *mean, double *variance, const REAL *y, const REAL *weight, long N, long C, long pixels,
                  double count) {
  for (long c = 0; c < C; ++c) {
    double total = 0, squares = 0;
    for (long n = 0; n < N; ++n) {
      const REAL *row = y + (n * C + c) * pixels * BLOCK;
      vec found[VECTORS] = {};
      for (long p = 0; p < pixels; ++p)
        for (long v = 0; v < VECTORS; ++v) found[v] += at(row + p * BLOCK + v * VECTOR);
      for (long v = 0; v < VECTORS; ++v) total += sum(found[v] * at(weight + n * BLOCK + v * VECTOR));
    }
    mean[c] = total / (count * pixels);
    const vec middle = all(mean[c]);
    for (long n = 0; n < N; ++n) {
      const REAL *row = y + (n * C + c) * pixels * BLOCK;
      vec found[VECTORS] = {};
      for (long p = 0; p < pixels; ++p)
        for (long v = 0; v < VECTORS; ++v) {
          const vec apart = at(row + p * BLOCK + v * VECTOR) - middle;
          found[v] += apart * apart;
        }
      for (long v = 0; v < VECTORS; ++v) squares += sum(found[v] * at(weight + n * BLOCK + v * VECTOR));
    }
    variance[c] = squares / (count * pixels);
  }
}

// out [N, C, S + 2 pad, …, 16] = (y - mean) * inverse * scale + bias (+ beside [N, C, S, S, 16]), rectified if asked
// for; the border stays.
KERNEL normalise(REAL *out, const REAL *y, const double *mean, const double *inverse, const REAL *scale,
                 const REAL *bias, const REAL *beside, long N, long C, long S, long pad, long rectified) {
  const long wide = S + 2 * pad;
  for (long row = 0; row < N * C; ++row) {
    const long c = row % C;
    const vec by = all(scale[c] * inverse[c]), plus = all(bias[c] - mean[c] * scale[c] * inverse[c]);
    for (long i = 0; i < S; ++i) {
      REAL *to = out + (row * wide * wide + (i + pad) * wide + pad) * BLOCK;
      const long from = (row * S + i) * S * BLOCK;
      for (long k = 0; k < S * BLOCK; k += VECTOR) {
        vec found = at(y + from + k) * by + plus;
        if (beside) found += at(beside + from + k);
        // NaN stays NaN.
        at(to + k) = rectified ? (found < 0 ? all(0) : found) : found;
      }
    }
  }
}

// gradient [count] becomes 0 where out is not above 0.
KERNEL rectify_backward(REAL *gradient, const REAL *out, long count) {
  for (long k = 0; k < count; k += VECTOR) at(gradient + k) = at(out + k) > 0 ? at(gradient + k) : all(0);
}

// From the gradient of what `normalise` made to that of y, in dy [N, C, S, S, 16]; of scale and bias, [C] each. out:
// given where it was rectified. gradient and out have the border `pad`.
KERNEL normalise_backward(REAL *dy, REAL *dscale, REAL *dbias, const REAL *gradient, const REAL *out, const REAL *y,
                          const double *mean, const double *inverse, const REAL *scale, const REAL *weight, long N,
                          long C, long S, long pad, double count) {
  const long wide = S + 2 * pad, pixels = S * S;
  for (long c = 0; c < C; ++c) {
    double total = 0, along = 0;
    const vec middle = all(mean[c]), by = all(inverse[c]);
    for (long n = 0; n < N; ++n) {
      vec found = all(0), product = all(0);
      for (long i = 0; i < S; ++i) {
        const long padded = ((n * C + c) * wide * wide + (i + pad) * wide + pad) * BLOCK;
        const long dense = ((n * C + c) * S + i) * S * BLOCK;
        for (long k = 0; k < S * BLOCK; k += VECTOR) {
          vec d = at(gradient + padded + k);
          if (out) d = at(out + padded + k) > 0 ? d : all(0);
          at(dy + dense + k) = d;
          found += d;
          product += d * ((at(y + dense + k) - middle) * by);
        }
      }
      total += sum(found), along += sum(product);
    }
    dscale[c] = along, dbias[c] = total;
    const vec factor = all(scale[c] * inverse[c]);
    const vec less = all(total / (count * pixels)), slope = all(along / (count * pixels));
    for (long n = 0; n < N; ++n) {
      REAL *d = dy + (n * C + c) * pixels * BLOCK;
      const REAL *of_y = y + (n * C + c) * pixels * BLOCK;
      for (long p = 0; p < pixels; ++p)
        for (long v = 0; v < VECTORS; ++v) {
          const long k = p * BLOCK + v * VECTOR;
          const vec often = at(weight + n * BLOCK + v * VECTOR);
          at(d + k) = factor * (at(d + k) - often * (less + slope * ((at(of_y + k) - middle) * by)));
        }
    }
  }
}

// The sums that the backward pass of a batch norm takes, total of the gradient and along of its products with what was
// normalised, [C] each in double, of gradient [N, C, pixels, 16], which becomes 0 where out is not above 0.
KERNEL norm_sums(double *total, double *along, REAL *gradient, const REAL *out, const REAL *y, const double *mean,
                 const double *inverse, long N, long C, long pixels) {
  for (long c = 0; c < C; ++c) {
    total[c] = along[c] = 0;
    const vec middle = all(mean[c]), by = all(inverse[c]);
    for (long n = 0; n < N; ++n) {
      const long row = (n * C + c) * pixels * BLOCK;
      vec found = all(0), product = all(0);
      for (long k = row; k < row + pixels * BLOCK; k += VECTOR) {
        const vec d = at(out + k) > 0 ? at(gradient + k) : all(0);
        at(gradient + k) = d;
        found += d;
        product += d * ((at(y + k) - middle) * by);
      }
      total[c] += sum(found), along[c] += sum(product);
    }
  }
}

#include "stem.cpp"
