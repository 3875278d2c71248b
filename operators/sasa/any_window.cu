// Local attention for any window, head width and map: the path of whatever has no faster one.
//
// A block takes a few pixels of one map (up to 32, fewer as the window grows) and keeps one number, or two, for each of
// their taps in shared memory. First the threads share the taps, then the channels: so neither the window nor the head
// width is bounded by registers. Feature maps are read through the L1 cache, neighbouring lanes neighbouring pixels.
//
// Predicted bound on an H200: loads. Two per multiply-add, 32 lanes a clock: 196 / 32 = 6.1 clocks an output at k = 7,
// where memory asks for 1.0 (float) or 0.5 (16 bits).
#include "window.cuh"

constexpr int THREADS = 256;

// Which pixel a thread works on, and as which of the workers that share its taps and channels.
struct Worker {
  int map, pixel, row, column, lane, index, count;
  bool inside;

  DEVICE Worker at(const Extents& p, int map, int tile, int pixels) {
    const int lane = threadIdx.x % pixels, pixel = tile * pixels + lane, row = pixel / p.width;
    return {map,  pixel, row, pixel - row * p.width, lane, static_cast<int>(threadIdx.x) / pixels, THREADS / pixels,
            pixel < p.height * p.width};
  }
};

DEVICE bool in_image(const Extents& p, int row, int column) {
  return row >= 0 && row < p.height && column >= 0 && column < p.width;
}

// The logit of the query at `query` and the key at `key`, offsets in their map, which are one tap apart; `reads` is
// whether there is a key.
template <typename T>
DEVICE float logit(const Extents& p, const T* q, const T* k, int query, int key, bool reads, const Embeddings<T>& rel,
                   int a, int b) {
  const int plane = p.height * p.width;
  float content = 0, position = 0;
  for (int channel = 0; channel < p.channels; ++channel) {
    const float asked = to_float(q[channel * plane + query]);
    if (reads) content = fmaf(asked, to_float(k[channel * plane + key]), content);
    position = fmaf(asked, rel.at(channel, a, b), position);
  }
  return content + position;
}

template <typename T>
DEVICE float product(const Extents& p, const T* x, const T* y, int at_x, int at_y) {
  const int plane = p.height * p.width;
  float sum = 0;
  for (int channel = 0; channel < p.channels; ++channel)
    sum = fmaf(to_float(x[channel * plane + at_x]), to_float(y[channel * plane + at_y]), sum);
  return sum;
}

struct Forward {
  const void *q, *k, *v, *rel_h, *rel_w;
  void* y;
  float* highest;  // [images * heads, height, width]: highest logit in units of log 2
  Extents extents;
  int pixels, tiles;  // pixels of a block, blocks of a map
};

template <typename T>
__global__ void __launch_bounds__(THREADS, 3) any_forward(const Forward p) {
  SHARED_MEMORY(float, scores);  // [tap][pixel of the block]
  const Extents& x = p.extents;
  const int map = blockIdx.x / p.tiles, radius = x.window / 2, taps = x.window * x.window, plane = x.height * x.width;
  const Worker me = Worker::at(x, map, blockIdx.x % p.tiles, p.pixels);
  const T *q = map_of<T>(p.q, x, map), *k = map_of<T>(p.k, x, map), *v = map_of<T>(p.v, x, map);
  const auto rel = Embeddings<T>::of(p.rel_h, p.rel_w, x, map);

  for (int tap = me.index; tap < taps && me.inside; tap += me.count) {
    const int a = tap / x.window, b = tap - a * x.window, row = me.row + a - radius, column = me.column + b - radius;
    const bool reads = in_image(x, row, column);
    scores[tap * p.pixels + me.lane] =
        reads || !x.masked ? logit(x, q, k, me.pixel, row * x.width + column, reads, rel, a, b) : LEFT_OUT;
  }
  __syncthreads();
  float most = LEFT_OUT;
  for (int tap = 0; tap < taps && me.inside; ++tap) most = fmaxf(most, scores[tap * p.pixels + me.lane]);
  __syncthreads();
  most *= LOG2_E;
  for (int tap = me.index; tap < taps && me.inside; tap += me.count) {
    float& score = scores[tap * p.pixels + me.lane];
    score = unscaled_share(score, most);
  }
  __syncthreads();
  if (!me.inside) return;
  float total = 0;
  for (int tap = 0; tap < taps; ++tap) total += scores[tap * p.pixels + me.lane];
  if (me.index == 0) p.highest[static_cast<long long>(map) * plane + me.pixel] = most;

  for (int channel = me.index; channel < x.channels; channel += me.count) {
    const T* value = v + channel * plane;
    float sum = 0;
    for (int a = 0; a < x.window; ++a)
      for (int b = 0; b < x.window; ++b) {
        const int row = me.row + a - radius, column = me.column + b - radius;
        if (in_image(x, row, column))
          sum = fmaf(scores[(a * x.window + b) * p.pixels + me.lane], to_float(value[row * x.width + column]), sum);
      }
    map_of<T>(p.y, x, map)[channel * plane + me.pixel] = from_float<T>(sum / total);
  }
}

struct QueryBackward {
  const void *gradient, *q, *k, *v, *rel_h, *rel_w, *y;
  const float* highest;  // [images * heads, height, width]: highest logit in units of log 2
  void* grad_q;          // or null
  float* sums;           // [images * heads, 2, height, width]: scale of the shares; attention times its gradient
  float* partial;        // [images * heads, splits, channels, window]: embeddings' gradient, by block; or null
  Extents extents;
  int pixels, tiles, splits;  // a block takes every `splits`-th of a map's tiles
};

// Gradients that each query owns: its own, and its share of the embeddings'.
template <typename T>
__global__ void __launch_bounds__(THREADS, 3) any_query_backward(const QueryBackward p) {
  SHARED_MEMORY(float, attention);  // [tap][pixel], then the logits' gradients; after it the attention's gradients
  const Extents& x = p.extents;
  const int map = blockIdx.x / p.splits, split = blockIdx.x % p.splits;
  const int radius = x.window / 2, taps = x.window * x.window, plane = x.height * x.width;
  float* slopes = attention + taps * p.pixels;
  const T *q = map_of<T>(p.q, x, map), *k = map_of<T>(p.k, x, map), *v = map_of<T>(p.v, x, map);
  const T* gradient = map_of<T>(p.gradient, x, map);
  const auto rel = Embeddings<T>::of(p.rel_h, p.rel_w, x, map);

  for (int tile = split; tile < p.tiles; tile += p.splits) {
    const Worker me = Worker::at(x, map, tile, p.pixels);
    const long long start = static_cast<long long>(map) * plane, at = start + me.pixel;
    const float highest = me.inside ? p.highest[at] : 0.0f;
    for (int tap = me.index; tap < taps; tap += me.count) {
      const int a = tap / x.window, b = tap - a * x.window, row = me.row + a - radius, column = me.column + b - radius;
      const bool reads = me.inside && in_image(x, row, column), counts = me.inside && (reads || !x.masked);
      const int key = row * x.width + column;
      // Pixels beyond the map have no attention, and so add nothing below.
      attention[tap * p.pixels + me.lane] =
          counts ? unscaled_share(logit(x, q, k, me.pixel, key, reads, rel, a, b), highest) : 0.0f;
      slopes[tap * p.pixels + me.lane] = reads ? product(x, gradient, v, me.pixel, key) : 0.0f;
    }
    __syncthreads();
    // Attention times its gradient, summed, is y times its own but for roundings. Those are what the logits' gradients,
    // which sum to zero, have left over, and every key would be multiplied with it.
    float weighted = me.inside ? product(x, gradient, map_of<T>(p.y, x, map), me.pixel, me.pixel) : 0.0f;
    float left = 0, total = 0;
    for (int tap = 0; tap < taps; ++tap) {
      const float share = attention[tap * p.pixels + me.lane];
      left = fmaf(share, slopes[tap * p.pixels + me.lane] - weighted, left);
      total += share;
    }
    const float scale = me.inside ? 1 / total : 0;
    weighted = fmaf(left, scale, weighted);
    if (me.inside && me.index == 0) {
      p.sums[start + at] = scale;
      p.sums[start + at + plane] = weighted;
    }
    __syncthreads();
    for (int tap = me.index; tap < taps; tap += me.count)
      attention[tap * p.pixels + me.lane] *= (slopes[tap * p.pixels + me.lane] - weighted) * scale;
    __syncthreads();

    for (int channel = me.index; channel < x.channels && me.inside && p.grad_q; channel += me.count) {
      float content = 0, position = 0;
      for (int a = 0; a < x.window; ++a)
        for (int b = 0; b < x.window; ++b) {
          const int row = me.row + a - radius, column = me.column + b - radius;
          const float key = in_image(x, row, column) ? to_float(k[channel * plane + row * x.width + column]) : 0.0f;
          const float slope = attention[(a * x.window + b) * p.pixels + me.lane];
          content = fmaf(slope, key, content);
          position = fmaf(slope, rel.at(channel, a, b), position);
        }
      map_of<T>(p.grad_q, x, map)[channel * plane + me.pixel] = from_float<T>(content + position);
    }
    for (int i = threadIdx.x; i < x.channels * x.window && p.partial; i += THREADS) {
      const int channel = i / x.window, shift = i - channel * x.window;
      // Down a column of taps, or along a row of them.
      const bool by_row = channel < rel.half;
      const int first = by_row ? shift * x.window : shift, step = by_row ? 1 : x.window;
      float sum = 0;
      for (int pixel = 0; pixel < p.pixels && tile * p.pixels + pixel < plane; ++pixel) {
        float slope = 0;
        for (int tap = 0; tap < x.window; ++tap) slope += attention[(first + tap * step) * p.pixels + pixel];
        sum = fmaf(slope, to_float(q[channel * plane + tile * p.pixels + pixel]), sum);
      }
      float& mine = p.partial[static_cast<long long>(blockIdx.x) * x.channels * x.window + i];
      mine = tile == split ? sum : mine + sum;
    }
    __syncthreads();
  }
}

struct KeyBackward {
  const void *gradient, *q, *k, *v, *rel_h, *rel_w;
  const float *highest, *sums;  // of each query, as above
  void *grad_k, *grad_v;        // or null
  Extents extents;
  int pixels, tiles;
};

// Gradients that each key owns: it gathers from the queries whose windows hold it.
template <typename T>
__global__ void __launch_bounds__(THREADS, 3) any_key_backward(const KeyBackward p) {
  SHARED_MEMORY(float, attention);  // [tap][pixel]; after it the logits' gradients
  const Extents& x = p.extents;
  const int map = blockIdx.x / p.tiles, radius = x.window / 2, taps = x.window * x.window, plane = x.height * x.width;
  const Worker me = Worker::at(x, map, blockIdx.x % p.tiles, p.pixels);
  float* slopes = attention + taps * p.pixels;
  const T *q = map_of<T>(p.q, x, map), *k = map_of<T>(p.k, x, map), *v = map_of<T>(p.v, x, map);
  const T* gradient = map_of<T>(p.gradient, x, map);
  const auto rel = Embeddings<T>::of(p.rel_h, p.rel_w, x, map);
  const long long start = static_cast<long long>(map) * plane;

  for (int tap = me.index; tap < taps && me.inside; tap += me.count) {
    const int a = tap / x.window, b = tap - a * x.window, row = me.row - a + radius, column = me.column - b + radius;
    const int query = row * x.width + column;
    float share = 0, slope = 0;
    if (in_image(x, row, column)) {
      const float* const sums = p.sums + 2 * start + query;
      share = unscaled_share(logit(x, q, k, query, me.pixel, true, rel, a, b), p.highest[start + query]) * sums[0];
      if (p.grad_k) slope = share * (product(x, gradient, v, query, me.pixel) - sums[plane]);
    }
    attention[tap * p.pixels + me.lane] = share;
    slopes[tap * p.pixels + me.lane] = slope;
  }
  __syncthreads();
  if (!me.inside) return;
  for (int channel = me.index; channel < x.channels; channel += me.count) {
    float key = 0, value = 0;
    for (int a = 0; a < x.window; ++a)
      for (int b = 0; b < x.window; ++b) {
        const int row = me.row - a + radius, column = me.column - b + radius;
        if (!in_image(x, row, column)) continue;
        const int query = channel * plane + row * x.width + column;
        const int tap = (a * x.window + b) * p.pixels + me.lane;
        key = fmaf(slopes[tap], to_float(q[query]), key);
        value = fmaf(attention[tap], to_float(gradient[query]), value);
      }
    if (p.grad_k) map_of<T>(p.grad_k, x, map)[channel * plane + me.pixel] = from_float<T>(key);
    if (p.grad_v) map_of<T>(p.grad_v, x, map)[channel * plane + me.pixel] = from_float<T>(value);
  }
}

struct Sum {
  void *grad_h, *grad_w;  // [channels / 2, window] or [heads, channels / 2, window]
  const float* partial;   // [images * heads, splits, channels, window]
  int images, heads, splits, size;  // `size`: channels * window
  int per_head;
};

// Adds up the embeddings' gradients, one element a block, in an order that depends on extents alone.
template <typename T>
__global__ void __launch_bounds__(THREADS, 3) sum_embeddings(const Sum p) {
  SHARED_MEMORY(float, sums);
  const int element = blockIdx.x % p.size, owner = blockIdx.x / p.size;
  const int heads = p.per_head ? 1 : p.heads, terms = p.images * heads * p.splits;
  float sum = 0;
  for (int term = threadIdx.x; term < terms; term += THREADS) {
    const int map = term / p.splits, image = map / heads, head = owner + map % heads;
    const long long block = (static_cast<long long>(image) * p.heads + head) * p.splits + term % p.splits;
    sum += p.partial[block * p.size + element];
  }
  sum = warp_sum(sum);
  if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = sum;
  __syncthreads();
  if (threadIdx.x) return;
  for (int warp = 1; warp < THREADS / 32; ++warp) sum += sums[warp];
  const int half = p.size / 2, is_column = element >= half;
  static_cast<T*>(is_column ? p.grad_w : p.grad_h)[owner * half + element - is_column * half] = from_float<T>(sum);
}
