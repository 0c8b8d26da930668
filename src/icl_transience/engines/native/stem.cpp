// The stem: convolution and pooling in one pass, so that what the convolution makes is never in memory as a whole.
// Since a batch norm is increasing, or decreasing where its scale is below 0, the largest of a window after it is the
// largest, or the smallest, before it.

// total [Ci * K * K]: sums of what each tap reads, over pixels and images.
KERNEL stem_sums(double *total, const REAL *in, const REAL *weight, long N, long Ci, long Si, long So, long K,
                 long stride) {
  std::fill(total, total + Ci * K * K, 0.0);
  Rows rows = taps(in, Ci, Si, K, stride);
  for (long n = 0; n < N; ++n)
    for (size_t j = 0; j < rows.offset.size(); ++j) {
      const REAL *tap = in + n * Ci * Si * Si * BLOCK + rows.offset[j];
      vec found[VECTORS] = {};
      for (long y = 0; y < So; ++y)
        for (long x = 0; x < So; ++x)
          for (long v = 0; v < VECTORS; ++v) found[v] += at(tap + y * rows.y_step + x * rows.x_step + v * VECTOR);
      for (long v = 0; v < VECTORS; ++v) total[j] += sum(found[v] * at(weight + n * BLOCK + v * VECTOR));
    }
}

// pooled [N, Co, Sp, Sp, 16]: what the convolution makes where the window's result is from; place: where that is, row *
// 16 + column of what of the window lies within. squares [Co]: sums of squared distances from mean. weight [Co, Ci, K,
// K]; scale [Co].
KERNEL stem_forward(REAL *pooled, uint8_t *place, double *squares, const REAL *in, const REAL *weight,
                    const double *mean, const REAL *scale, const REAL *often, long N, long Ci, long Co, long Si,
                    long So, long Sp, long K, long stride, long pool, long pool_stride) {
  const long row = Co * So * BLOCK, half = (pool - 1) / 2;
  std::fill(squares, squares + Co, 0.0);
  std::vector<REAL> storage(pool * row + BLOCK);
  REAL *rows = begin_of(storage);
  const std::vector<REAL> outputs_last = packed(weight, Ci, Co, K, true);
  for (long n = 0; n < N; ++n) {
    long made = 0;
    for (long py = 0; py < Sp; ++py) {
      const long last = std::min(So, py * pool_stride + half + 1);
      for (; made < last; ++made) {
        REAL *to = rows + made % pool * row;
        for (long x = 0; x < So; ++x)
          pixel_of_all(Co, to + x * BLOCK, So * BLOCK, in + ((n * Ci * Si + made * stride) * Si + x * stride) * BLOCK,
                       Ci, Si * Si * BLOCK, Si, K, K, 1, 1, outputs_last.data(), K * K * Co, K * Co, Co, false);
        for (long c = 0; c < Co; ++c) {
          vec found[VECTORS] = {};
          const vec middle = all(mean[c]);
          for (long x = 0; x < So; ++x)
            for (long v = 0; v < VECTORS; ++v) {
              const vec apart = at(to + (c * So + x) * BLOCK + v * VECTOR) - middle;
              found[v] += apart * apart;
            }
          for (long v = 0; v < VECTORS; ++v) squares[c] += sum(found[v] * at(often + n * BLOCK + v * VECTOR));
        }
      }
      const long first = std::max(0L, py * pool_stride - half);
      for (long c = 0; c < Co; ++c) {
        const vec sign = all(scale[c] > 0 ? 1 : scale[c] < 0 ? -1 : 0);
        for (long px = 0; px < Sp; ++px) {
          const long left = std::max(0L, px * pool_stride - half), right = std::min(So, px * pool_stride + half + 1);
          for (long v = 0; v < VECTORS; ++v) {
            vec best = at(rows + first % pool * row + (c * So + left) * BLOCK + v * VECTOR), number = all(0);
            for (long y = first; y < last; ++y)
              for (long x = left; x < right; ++x) {
                const vec here = at(rows + y % pool * row + (c * So + x) * BLOCK + v * VECTOR);
                const auto better = (here * sign > best * sign);
                best = better ? here : best;
                number = better ? all((y - first) * 16 + x - left) : number;
              }
            const long to = (((n * Co + c) * Sp + py) * Sp + px) * BLOCK + v * VECTOR;
            at(pooled + to) = best;
            for (long col = 0; col < VECTOR; ++col) place[to + col] = number[col];
          }
        }
      }
    }
  }
}

// products [Co, J] of gradient [N, Co, Sp, Sp, 16], at the places that it is from, with what the J taps read there;
// gram [J, J] of what they read, its upper half. Both in double.
KERNEL stem_backward(double *products_of, double *gram, const REAL *gradient, const uint8_t *place, const REAL *in,
                     const REAL *often, long N, long Ci, long Co, long Si, long So, long Sp, long K, long stride,
                     long pool, long pool_stride) {
  const long J = Ci * K * K, tile = tile_rows(So), half = (pool - 1) / 2, pixels = tile * So;
  const auto begin_of_window = [&](long p) { return std::max(0L, p * pool_stride - half); };
  // Of each row, or column: the windows that it lies in.
  std::vector<long> first_window(So), last_window(So);
  for (long y = 0; y < So; ++y) {
    first_window[y] = std::max(0L, y - half + pool_stride - 1) / pool_stride;
    last_window[y] = std::min(Sp - 1, (y + half) / pool_stride);
  }
  std::fill(products_of, products_of + Co * J, 0.0);
  std::fill(gram, gram + J * J, 0.0);
  std::vector<vec> total(Co * J, all(0)), of_taps(J * J, all(0));
  std::vector<REAL> dense(Co * pixels * BLOCK + BLOCK), scaled(Ci * Si * Si * BLOCK + BLOCK);
  REAL *spread = begin_of(dense), *weighed = begin_of(scaled);
  Rows right = taps(in, Ci, Si, K, stride), same = taps(weighed, Ci, Si, K, stride);
  Rows left{spread, channels(Co, pixels), So * BLOCK, BLOCK};
  for (long n = 0; n < N; ++n) {
    right.base = in + n * Ci * Si * Si * BLOCK;
    for (long p = 0; p < Ci * Si * Si; ++p)
      for (long v = 0; v < VECTORS; ++v)
        at(weighed + p * BLOCK + v * VECTOR) =
            at(right.base + p * BLOCK + v * VECTOR) * at(often + n * BLOCK + v * VECTOR);
    for (long first = 0; first < So; first += tile) {
      const long last = std::min(So, first + tile);
      // Of each pixel: the windows that it lies in, and of these the images whose result is from it.
      for (long c = 0; c < Co; ++c)
        for (long y = first; y < last; ++y)
          for (long x = 0; x < So; ++x) {
            vec found[VECTORS] = {};
            for (long py = first_window[y]; py <= last_window[y]; ++py)
              for (long px = first_window[x]; px <= last_window[x]; ++px) {
                const whole number = (y - begin_of_window(py)) * 16 + x - begin_of_window(px);
                const long from = (((n * Co + c) * Sp + py) * Sp + px) * BLOCK;
                for (long v = 0; v < VECTORS; ++v) {
                  const auto here = wide(place + from + v * VECTOR) == number;
                  found[v] += here ? at(gradient + from + v * VECTOR) : all(0);
                }
              }
            REAL *to = spread + (c * pixels + (y - first) * So + x) * BLOCK;
            for (long v = 0; v < VECTORS; ++v) at(to + v * VECTOR) = found[v];
          }
      all_products(total.data(), left, right, first, last, So, false);
      same.base = weighed + first * same.y_step;
      all_products(of_taps.data(), same, right, first, last, So, true);
    }
    flush(products_of, total);
    flush(gram, of_taps);
  }
}
