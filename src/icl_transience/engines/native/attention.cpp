// Attention, a part of kernels.cpp: one translation unit, so that the compiler sees all of it at once.

static inline long pair(long i, long j) { return i * (i + 1) / 2 + j; }

// Causal attention of every token: qkv [3D, T, B] -> weights [H, T(T+1)/2, B], of token i to tokens j <= i, and the
// mixed values [D, T, B].
KERNEL attention(float *mixed, float *weights, const float *qkv, long B, float scale) {
  for (long h = 0; h < H; ++h)
    for (long b = 0; b < B; b += VECTOR) {
      const float *q = qkv + h * A * T * B + b, *k = q + D * T * B, *v = k + D * T * B;
      float *w = weights + h * pair(T, 0) * B + b, *o = mixed + h * A * T * B + b;
      for (long i = 0; i < T; ++i) {
        vec query[A], out[A];
        for (long a = 0; a < A; ++a) query[a] = at(q + (a * T + i) * B) * scale, out[a] = all(0);
        vec highest = all(-__builtin_inff());
        for (long j = 0; j <= i; ++j) {
          vec score = all(0);
          for (long a = 0; a < A; ++a) score += query[a] * at(k + (a * T + j) * B);
          at(w + pair(i, j) * B) = score;
          highest = maximum(score, highest);
        }
        vec total = all(0);
        for (long j = 0; j <= i; ++j) {
          const vec e = exponential(at(w + pair(i, j) * B) - highest);
          at(w + pair(i, j) * B) = e;
          total += e;
        }
        for (long j = 0; j <= i; ++j) {
          // Not times 1 / total, which rounds once more: where one weight is nearly 1, backward feels it.
          const vec weight = at(w + pair(i, j) * B) / total;
          at(w + pair(i, j) * B) = weight;
          for (long a = 0; a < A; ++a) out[a] += weight * at(v + (a * T + j) * B);
        }
        for (long a = 0; a < A; ++a) at(o + (a * T + i) * B) = out[a];
      }
    }
}

// The gradient of qkv [3D, T, B] from that of mixed.
KERNEL attention_backward(float *qkv_gradient, const float *mixed_gradient, const float *weights, const float *qkv,
                          long B, float scale) {
  for (long h = 0; h < H; ++h)
    for (long b = 0; b < B; b += VECTOR) {
      const long part = D * T * B, offset = h * A * T * B + b;
      const float *q = qkv + offset, *k = q + part, *v = k + part, *g = mixed_gradient + offset;
      const float *w = weights + h * pair(T, 0) * B + b;
      float *dq = qkv_gradient + offset, *dk = dq + part, *dv = dk + part;
      for (long a = 0; a < A; ++a)
        for (long t = 0; t < T; ++t) at(dk + (a * T + t) * B) = all(0), at(dv + (a * T + t) * B) = all(0);
      for (long i = 0; i < T; ++i) {
        vec query[A], out_gradient[A], query_gradient[A], along_weights = all(0);
        vec weight_gradient[T];
        for (long a = 0; a < A; ++a) {
          query[a] = at(q + (a * T + i) * B) * scale;
          out_gradient[a] = at(g + (a * T + i) * B);
          query_gradient[a] = all(0);
        }
        for (long j = 0; j <= i; ++j) {
          const vec weight = at(w + pair(i, j) * B);
          vec total = all(0);
          for (long a = 0; a < A; ++a) {
            total += out_gradient[a] * at(v + (a * T + j) * B);
            at(dv + (a * T + j) * B) += weight * out_gradient[a];
          }
          weight_gradient[j] = total;
          along_weights += weight * total;
        }
        for (long j = 0; j <= i; ++j) {
          const vec score_gradient = at(w + pair(i, j) * B) * (weight_gradient[j] - along_weights);
          for (long a = 0; a < A; ++a) {
            query_gradient[a] += score_gradient * at(k + (a * T + j) * B);
            at(dk + (a * T + j) * B) += score_gradient * query[a];
          }
        }
        for (long a = 0; a < A; ++a) at(dq + (a * T + i) * B) = query_gradient[a] * scale;
      }
    }
}

// Attention of the last token alone. Keys and values are never made: with a head's query carried through its key
// weights, lookup [H, D, B], scores are lookup . y, and the head mixes y itself, [H, D, B], for its value weights
// to turn. y [D, T, B]; weights [H, T, B].
KERNEL last_attention(float *mixed, float *weights, const float *lookup, const float *y, long B, float scale) {
  for (long b = 0; b < B; b += VECTOR)
    for (long t = 0; t < T; ++t) {
      vec score[H];
      for (long h = 0; h < H; ++h) score[h] = all(0);
      for (long d = 0; d < D; ++d) {
        const vec token = at(y + (d * T + t) * B + b);
        for (long h = 0; h < H; ++h) score[h] += token * at(lookup + (h * D + d) * B + b);
      }
      for (long h = 0; h < H; ++h) at(weights + (h * T + t) * B + b) = score[h] * scale;
    }
  for (long h = 0; h < H; ++h)
    for (long b = 0; b < B; b += VECTOR) {
      float *w = weights + h * T * B + b;
      vec highest = at(w), total = all(0);
      for (long t = 1; t < T; ++t) highest = maximum(at(w + t * B), highest);
      for (long t = 0; t < T; ++t) total += at(w + t * B) = exponential(at(w + t * B) - highest);
      for (long t = 0; t < T; ++t) at(w + t * B) /= total;
    }
  for (long b = 0; b < B; b += VECTOR)
    for (long d = 0; d < D; ++d) {
      vec out[H];
      for (long h = 0; h < H; ++h) out[h] = all(0);
      for (long t = 0; t < T; ++t) {
        const vec token = at(y + (d * T + t) * B + b);
        for (long h = 0; h < H; ++h) out[h] += token * at(weights + (h * T + t) * B + b);
      }
      for (long h = 0; h < H; ++h) at(mixed + (h * D + d) * B + b) = out[h];
    }
}

// Gradients of lookup [H, D, B] and y [D, T, B] from that of mixed; score_gradient [H, T, B] is working memory.
KERNEL last_attention_backward(float *lookup_gradient, float *y_gradient, float *score_gradient,
                               const float *mixed_gradient, const float *weights, const float *lookup,
                               const float *y, long B, float scale) {
  for (long b = 0; b < B; b += VECTOR) {
    vec along_weights[H];
    for (long h = 0; h < H; ++h) along_weights[h] = all(0);
    for (long t = 0; t < T; ++t) {
      vec total[H];
      for (long h = 0; h < H; ++h) total[h] = all(0);
      for (long d = 0; d < D; ++d) {
        const vec token = at(y + (d * T + t) * B + b);
        for (long h = 0; h < H; ++h) total[h] += token * at(mixed_gradient + (h * D + d) * B + b);
      }
      for (long h = 0; h < H; ++h) {
        at(score_gradient + (h * T + t) * B + b) = total[h];
        along_weights[h] += total[h] * at(weights + (h * T + t) * B + b);
      }
    }
    for (long h = 0; h < H; ++h)
      for (long t = 0; t < T; ++t) {
        vec &g = at(score_gradient + (h * T + t) * B + b);
        g = (g - along_weights[h]) * at(weights + (h * T + t) * B + b) * scale;
      }
    for (long d = 0; d < D; ++d) {
      vec found[H], sought[H], sought_gradient[H];
      for (long h = 0; h < H; ++h) {
        found[h] = at(mixed_gradient + (h * D + d) * B + b);
        sought[h] = at(lookup + (h * D + d) * B + b);
        sought_gradient[h] = all(0);
      }
      for (long t = 0; t < T; ++t) {
        const vec token = at(y + (d * T + t) * B + b);
        vec total = all(0);
        for (long h = 0; h < H; ++h) {
          const vec g = at(score_gradient + (h * T + t) * B + b);
          sought_gradient[h] += token * g;
          total += g * sought[h] + at(weights + (h * T + t) * B + b) * found[h];
        }
        at(y_gradient + (d * T + t) * B + b) = total;
      }
      for (long h = 0; h < H; ++h) at(lookup_gradient + (h * D + d) * B + b) = sought_gradient[h];
    }
  }
}
