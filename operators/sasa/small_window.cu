// Local attention on float units for small windows: four neighbouring queries a thread, so that a row of keys
// that is read once serves four windows; softmax row by row, so that registers hold one row of logits.
//
// Keys and values come through the L1 cache, neighbouring lanes neighbouring strips, and need no shared memory.
//
// Predicted bound on an H200 at k = 7: instructions. See README.md.
#include "strip.cuh"

struct Forward {
  const void *q, *k, *v, *rel_h, *rel_w;
  void* y;
  float* highest;  // [images * heads, height, width]: highest logit in units of log 2
  Extents extents;
  int shares, tiles;  // lanes that share a strip, blocks of a map
};

constexpr int FORWARD_CHANNELS = 8;

template <typename T, int K, int VEC>
__global__ void __launch_bounds__(STRIP_THREADS, 1) small_forward(const Forward p) {
  constexpr int CHANNELS = FORWARD_CHANNELS;
  typedef Columns<K, VEC> Seen;
  SHARED_MEMORY(float, memory);
  const Extents& x = p.extents;
  const Strip strip = Strip::at(x, p.shares, p.tiles, CHANNELS);
  const int plane = x.height * x.width, padded = p.shares * CHANNELS;

  const auto tables = Tables<K>::template fill<T>(memory, p.rel_h, p.rel_w, x, strip.map, padded);
  float q[CHANNELS][STRIP], sums[CHANNELS][STRIP], most[STRIP], total[STRIP];  // `most` in units of log 2
  load_strip<VEC>(q, map_of<T>(p.q, x, strip.map), x, strip);
  const auto column_logits = ColumnLogits<K>::fill(memory + 2 * padded * K, q, tables.column, x, strip);
#pragma unroll
  for (int pixel = 0; pixel < STRIP; ++pixel) {
    most[pixel] = LOWEST;
    total[pixel] = 0;
#pragma unroll
    for (int e = 0; e < CHANNELS; ++e) sums[e][pixel] = 0;
  }

  const T* k = map_of<T>(p.k, x, strip.map);
  const T* v = map_of<T>(p.v, x, strip.map);
#pragma unroll 1
  for (int a = 0; a < K; ++a) {
    const int row = strip.row + a - K / 2;
    const int first = row * x.width + strip.column - Seen::LEFT;
    bool inside[Seen::SPAN / VEC];
    Seen::inside(inside, x, strip, row);
    float logits[K][STRIP];
    column_logits.start(logits, q, tables.row, a, x.masked && (row < 0 || row >= x.height), strip);
    add_products<K, VEC>(logits, q, k + first, x, strip, inside);
#pragma unroll
    for (int b = 0; b < K; ++b) sum_shares(logits[b], p.shares);

#pragma unroll
    for (int pixel = 0; pixel < STRIP; ++pixel) {
      float highest = logits[0][pixel];
#pragma unroll
      for (int b = 1; b < K; ++b) highest = fmaxf(highest, logits[b][pixel]);
      highest = fmaxf(most[pixel], highest * LOG2_E);
      const float scale = power_of_two(most[pixel] - highest);
      most[pixel] = highest;
      total[pixel] *= scale;
#pragma unroll
      for (int e = 0; e < CHANNELS; ++e) sums[e][pixel] *= scale;
#pragma unroll
      for (int b = 0; b < K; ++b) {
        logits[b][pixel] = unscaled_share(logits[b][pixel], highest);
        total[pixel] += logits[b][pixel];
      }
    }
    // Nothing to wait for: it keeps the compiler from loading values before registers are free for them.
    __syncwarp();
    add_weighted<K, VEC>(sums, logits, v + first, x, strip, inside);
  }

  const int at = strip.row * x.width + strip.column, columns = strip.inside ? x.width - strip.column : 0;
#pragma unroll
  for (int pixel = 0; pixel < STRIP; ++pixel) total[pixel] = 1 / total[pixel];
  if (strip.share == 0) store_strip<VEC>(p.highest + static_cast<long long>(strip.map) * plane + at, most, columns);
  T* y = map_of<T>(p.y, x, strip.map) + strip.channel * plane + at;
#pragma unroll
  for (int e = 0; e < CHANNELS; ++e) {
#pragma unroll
    for (int pixel = 0; pixel < STRIP; ++pixel) sums[e][pixel] *= total[pixel];
    if (strip.channel + e < x.channels) store_strip<VEC>(y + e * plane, sums[e], columns);
  }
}
