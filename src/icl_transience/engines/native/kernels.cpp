// What PyTorch has no fast operation for at these sizes, compiled for each model shape; see program.py.
//
// Everything is laid out feature-major: an activation is [features, T, B], the batch innermost, so that up to
// sixteen sequences stand in one vector and no kernel shuffles inside one. Matrix products are PyTorch's.
// WIDTH (D), HEADS (H; A = D / H) and TOKENS (T) are set when compiling; the batch B and the columns N (B or T * B) are
// multiples of 16. K labels, F hidden features. A kernel overwrites its outputs unless its comment says it adds.

#include <cstdint>
#include <cstring>

#define KERNEL extern "C" void
constexpr long D = WIDTH, H = HEADS, A = D / H, T = TOKENS;
// As many floats as one instruction takes: GCC does wider vectors' comparisons one number at a time.
#if defined(__AVX512F__)
constexpr long VECTOR = 16;
#elif defined(__AVX2__)
constexpr long VECTOR = 8;
#else
constexpr long VECTOR = 4;
#endif
constexpr float EPSILON = LAYER_NORM_EPSILON;

typedef float vec __attribute__((vector_size(4 * VECTOR), may_alias));
typedef int32_t ivec __attribute__((vector_size(4 * VECTOR), may_alias));

static inline vec &at(float *p) { return *reinterpret_cast<vec *>(p); }
static inline const vec &at(const float *p) { return *reinterpret_cast<const vec *>(p); }
static inline vec all(float x) { return x - vec{}; }

static inline float sum(const vec &v) {
  float total = 0;
  for (long col = 0; col < VECTOR; ++col) total += v[col];
  return total;
}

// e^x for x in [-87, 88], clamped to it; NaN stays NaN. 2^n e^r with |r| <= ln(2)/2, and e^r as Taylor's
// polynomial of degree 7, whose remainder there, r^8 / 8!, is under 6e-9: a tenth of a float's half unit.
static inline vec exponential(vec x) {
  x = x < -87.f ? all(-87.f) : x;
  x = x > 88.f ? all(88.f) : x;
  const float magic = 12582912.f;  // 1.5 * 2^23: adding it rounds to a whole number in the low bits
  vec shifted = x * 1.44269504088896341f + magic;
  vec n = shifted - magic;
  vec r = x - n * 0.693359375f + n * 2.12194440e-4f;
  vec p = all(1.f / 5040);
  p = p * r + 1.f / 720;
  p = p * r + 1.f / 120;
  p = p * r + 1.f / 24;
  p = p * r + 1.f / 6;
  p = p * r + 0.5f;
  p = p * r + 1.f;
  p = p * r + 1.f;
  ivec bits;
  std::memcpy(&bits, &shifted, sizeof bits);
  bits = (bits + 127) << 23;
  vec power;
  std::memcpy(&power, &bits, sizeof power);
  return p * power;
}

static inline vec maximum(vec a, vec b) { return a > b ? a : b; }
static inline vec square_root(vec x) {
  for (long col = 0; col < VECTOR; ++col) x[col] = __builtin_sqrtf(x[col]);
  return x;
}

// x [D, T, B] = x1 l1 … xC lC xq with their positions: exemplars [D, (C+1), B] + bias [D] in even places, rows of
// table [K, D] by labels [C, B] in odd ones. positions [T, D].
KERNEL embed(float *x, const float *exemplars, const float *bias, const float *table, const int64_t *labels,
             const float *positions, long B) {
  for (long t = 0; t < T; ++t)
    for (long b = 0; b < B; b += VECTOR) {
      if (t % 2 == 0) {
        for (long d = 0; d < D; ++d)
          at(x + (d * T + t) * B + b) =
              at(exemplars + (d * (T / 2 + 1) + t / 2) * B + b) + (bias[d] + positions[t * D + d]);
        continue;
      }
      const int64_t *label = labels + t / 2 * B + b;
      for (long d = 0; d < D; ++d) {
        vec gathered;
        for (long col = 0; col < VECTOR; ++col) gathered[col] = table[label[col] * D + d];
        at(x + (d * T + t) * B + b) = gathered + positions[t * D + d];
      }
    }
}

// Gradients of `embed` from that of x. Adds to table_gradient [K, D] at the labels.
KERNEL embed_backward(float *exemplars_gradient, float *bias_gradient, float *table_gradient,
                      const float *x_gradient, const int64_t *labels, long B) {
  for (long d = 0; d < D; ++d) {
    vec total = all(0);
    for (long t = 0; t < T; t += 2)
      for (long b = 0; b < B; b += VECTOR) {
        const vec &g = at(x_gradient + (d * T + t) * B + b);
        at(exemplars_gradient + (d * (T / 2 + 1) + t / 2) * B + b) = g;
        total += g;
      }
    bias_gradient[d] = sum(total);
  }
  for (long t = 1; t < T; t += 2)
    for (long b = 0; b < B; ++b) {
      float *row = table_gradient + labels[t / 2 * B + b] * D;
      for (long d = 0; d < D; ++d) row[d] += x_gradient[(d * T + t) * B + b];
    }
}

// LayerNorm over the D features of each of N columns: y = (x - mean) * inverse_std * scale + bias.
// x, y [D, N]; mean, inverse_std [N].
KERNEL norm(float *y, float *mean, float *inverse_std, const float *x, const float *scale, const float *bias,
            long N) {
  for (long n = 0; n < N; n += VECTOR) {
    vec total = all(0), squares = all(0);
    for (long d = 0; d < D; ++d) total += at(x + d * N + n);
    const vec center = total * (1.f / D);
    for (long d = 0; d < D; ++d) {
      const vec from_mean = at(x + d * N + n) - center;
      squares += from_mean * from_mean;
    }
    const vec inverse = 1.f / square_root(squares * (1.f / D) + EPSILON);
    at(mean + n) = center;
    at(inverse_std + n) = inverse;
    for (long d = 0; d < D; ++d) at(y + d * N + n) = (at(x + d * N + n) - center) * inverse * scale[d] + bias[d];
  }
}

// Adds the gradient of `norm` to x_gradient; overwrites those of scale and bias [D].
KERNEL norm_backward(float *x_gradient, float *scale_gradient, float *bias_gradient, const float *y_gradient,
                     const float *x, const float *mean, const float *inverse_std, const float *scale, long N) {
  vec scale_total[D], bias_total[D];
  std::memset(scale_total, 0, sizeof scale_total);
  std::memset(bias_total, 0, sizeof bias_total);
  for (long n = 0; n < N; n += VECTOR) {
    const vec center = at(mean + n), inverse = at(inverse_std + n);
    vec along_one = all(0), along_x = all(0);
    for (long d = 0; d < D; ++d) {
      const vec g = at(y_gradient + d * N + n), normed = (at(x + d * N + n) - center) * inverse;
      scale_total[d] += g * normed;
      bias_total[d] += g;
      along_one += g * scale[d];
      along_x += g * scale[d] * normed;
    }
    along_one *= 1.f / D;
    along_x *= 1.f / D;
    for (long d = 0; d < D; ++d) {
      const vec normed = (at(x + d * N + n) - center) * inverse;
      at(x_gradient + d * N + n) += inverse * (at(y_gradient + d * N + n) * scale[d] - along_one - normed * along_x);
    }
  }
  for (long d = 0; d < D; ++d) scale_gradient[d] = sum(scale_total[d]), bias_gradient[d] = sum(bias_total[d]);
}

#include "attention.cpp"

// GELU in its tanh form, which is u * sigmoid(2z) with z = sqrt(2/pi) (u + 0.044715 u^3), u = hidden + bias, on
// [F, N]: hidden becomes the activation, slope its derivative by u.
KERNEL gelu(float *hidden, float *slope, const float *bias, long F, long N) {
  const float c = 1.59576912160573071f;  // 2 sqrt(2/pi)
  for (long f = 0; f < F; ++f)
    for (long n = 0; n < N; n += VECTOR) {
      const vec u = at(hidden + f * N + n) + bias[f], square = u * u;
      const vec gate = 1.f / (1.f + exponential(-c * u * (1.f + 0.044715f * square)));
      at(hidden + f * N + n) = u * gate;
      at(slope + f * N + n) = gate + u * gate * (1.f - gate) * c * (1.f + 0.134145f * square);
    }
}

// gradient [F, N] *= slope; bias_gradient [F] is its sum over columns.
KERNEL gelu_backward(float *gradient, float *bias_gradient, const float *slope, long F, long N) {
  for (long f = 0; f < F; ++f) {
    vec total = all(0);
    for (long n = 0; n < N; n += VECTOR) total += at(gradient + f * N + n) *= at(slope + f * N + n);
    bias_gradient[f] = sum(total);
  }
}

// x [R, N] += bias [R].
KERNEL add_bias(float *x, const float *bias, long R, long N) {
  for (long r = 0; r < R; ++r)
    for (long n = 0; n < N; n += VECTOR) at(x + r * N + n) += bias[r];
}

// The gradient of bias from that of x.
KERNEL bias_backward(float *bias_gradient, const float *gradient, long R, long N) {
  for (long r = 0; r < R; ++r) {
    vec total = all(0);
    for (long n = 0; n < N; n += VECTOR) total += at(gradient + r * N + n);
    bias_gradient[r] = sum(total);
  }
}

// Cross-entropy of logits [K, B] against targets [B], in the first `used` columns. logits become the gradient of the
// mean loss by them, 0 in the other columns; loss[0] is the mean loss.
KERNEL cross_entropy(float *loss, float *logits, float *bias_gradient, const int64_t *targets, long K, long B, long used) {
  std::memset(bias_gradient, 0, K * sizeof(float));
  double total_loss = 0;
  for (long b = 0; b < B; b += VECTOR) {
    vec highest = all(-__builtin_inff()), total = all(0), target, share;
    for (long k = 0; k < K; ++k) highest = maximum(at(logits + k * B + b), highest);
    for (long col = 0; col < VECTOR; ++col) target[col] = logits[targets[b + col] * B + b + col];
    for (long k = 0; k < K; ++k) total += at(logits + k * B + b) = exponential(at(logits + k * B + b) - highest);
    for (long col = 0; col < VECTOR; ++col) {
      const bool counts = b + col < used;
      share[col] = counts ? 1.f / (total[col] * used) : 0.f;
      if (counts) total_loss += __builtin_log((double)total[col]) - (target[col] - highest[col]);
    }
    for (long k = 0; k < K; ++k) at(logits + k * B + b) *= share;
    for (long col = 0; col < VECTOR && b + col < used; ++col)
      logits[targets[b + col] * B + b + col] -= 1.f / used;
    for (long k = 0; k < K; ++k) bias_gradient[k] += sum(at(logits + k * B + b));
  }
  loss[0] = (float)(total_loss / used);
}

// Reduce logits [K, B] to what an evaluator needs. context_logits [C, B]: those of the labels [C, B] that stand in the
// context. Over all other labels, each [B]: max_logit, its label max_label, and log_sum, the logarithm of the sum of
// exponentials. target [B]: the targets' logits. The context's logits in `logits` are lost.
KERNEL answers(float *context_logits, float *max_logit, int64_t *max_label, float *log_sum, float *target, float *logits,
               const int64_t *labels, const int64_t *targets, long C, long K, long B) {
  for (long b = 0; b < B; b += VECTOR) {
    for (long col = 0; col < VECTOR; ++col) target[b + col] = logits[targets[b + col] * B + b + col];
    for (long c = 0; c < C; ++c)
      for (long col = 0; col < VECTOR; ++col)
        context_logits[c * B + b + col] = logits[labels[c * B + b + col] * B + b + col];
    for (long c = 0; c < C; ++c)
      for (long col = 0; col < VECTOR; ++col)
        logits[labels[c * B + b + col] * B + b + col] = -__builtin_inff();
    vec highest = all(-__builtin_inff()), total = all(0);
    ivec label = {}, left = {};
    for (long k = 0; k < K; ++k) {
      const vec logit = at(logits + k * B + b);
      left -= logit != -__builtin_inff();  // true is -1
      label = logit > highest ? label - label + (int32_t)k : label;
      highest = maximum(logit, highest);
    }
    // An exponent of -inf is clamped to -87: e^-87 a context label, which is nothing beside the highest's 1.
    for (long k = 0; k < K; ++k) total += exponential(at(logits + k * B + b) - highest);
    for (long col = 0; col < VECTOR; ++col) {
      max_logit[b + col] = highest[col];
      max_label[b + col] = label[col];
      const bool none = left[col] == 0;  // the context has every label
      log_sum[b + col] = none ? highest[col] : highest[col] + (float)__builtin_log((double)total[col]);
    }
  }
}

// The gradient of learned positions [T, D] from that of x.
KERNEL positions_backward(float *positions_gradient, const float *x_gradient, long B) {
  for (long t = 0; t < T; ++t)
    for (long d = 0; d < D; ++d) {
      vec total = all(0);
      for (long b = 0; b < B; b += VECTOR) total += at(x_gradient + (d * T + t) * B + b);
      positions_gradient[t * D + d] = sum(total);
    }
}
