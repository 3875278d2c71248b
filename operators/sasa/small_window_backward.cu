// Gradients of local attention on float units for small windows, as in small_window.cu four pixels a thread.
//
// The attention is computed again from each query's highest logit: once by the query, which owns its gradient and adds
// up the embeddings', and once by each key, which gathers from the queries whose windows hold it. Nothing is added to
// by two threads, so results do not depend on timing.
//
// A key's share is scaled, and its slope taken, by what its query has summed up. So both add up logits in one order, to
// the same bits: roundings of their own would not cancel as those of one softmax do, and cost several times as much.
//
// Predicted bound on an H200 at k = 7: instructions. See README.md.
#include "strip.cuh"

constexpr int BACKWARD_CHANNELS = 4, WARPS = STRIP_THREADS / 32;

struct QueryBackward {
  const void *gradient, *q, *k, *v, *rel_h, *rel_w, *y;
  const float* highest;  // [images * heads, height, width]: highest logit in units of log 2
  void* grad_q;          // or null
  float* sums;           // [images * heads, 2, height, width]: scale of the shares; attention times its gradient
  float* partial;        // [images * heads, tiles, channels, window]: embeddings' gradient, by block; or null
  Extents extents;
  int shares, tiles;
};

template <typename T, int K, int VEC>
__global__ void __launch_bounds__(STRIP_THREADS, 1) small_query_backward(const QueryBackward p) {
  constexpr int CHANNELS = BACKWARD_CHANNELS;
  typedef Columns<K, VEC> Seen;
  SHARED_MEMORY(float, memory);
  const Extents& x = p.extents;
  const Strip strip = Strip::at(x, p.shares, p.tiles, CHANNELS);
  const int plane = x.height * x.width, padded = p.shares * CHANNELS, slots = STRIP_THREADS / p.shares;
  const int at = strip.row * x.width + strip.column, columns = strip.inside ? x.width - strip.column : 0;

  const auto tables = Tables<K>::template fill<T>(memory, p.rel_h, p.rel_w, x, strip.map, padded);
  float* const logits_memory = memory + 2 * padded * K;
  // Sums along a strip's rows of taps, down its columns, and of attention along rows: [K][strip of the block] of four.
  float* const row_slopes = logits_memory + STRIP * STRIP_THREADS * K + STRIP * strip.slot;
  float* const column_slopes = row_slopes + STRIP * slots * K;
  float* const row_attention = column_slopes + STRIP * slots * K;

  float q[CHANNELS][STRIP], gradient[CHANNELS][STRIP], highest[STRIP];
  load_strip<VEC>(q, map_of<T>(p.q, x, strip.map), x, strip);
  load_strip<VEC>(gradient, map_of<T>(p.gradient, x, strip.map), x, strip);
  bool inside_strip[STRIP / VEC];
#pragma unroll
  for (int i = 0; i < STRIP / VEC; ++i) inside_strip[i] = i * VEC < columns;
  load_row<VEC>(highest, p.highest + static_cast<long long>(strip.map) * plane + at, inside_strip);
  const auto column_logits = ColumnLogits<K>::fill(logits_memory, q, tables.column, x, strip);

  // A slope, the gradient of a logit, is attention * (its gradient - weighted), and `weighted` is known at the end. Until
  // then y times its gradient, the same but for roundings, is in its place, so that no large sums are left to cancel.
  // What it is off by goes with sums of attention alone, with keys and without.
  float start[STRIP] = {};
  subtract_products<VEC>(start, gradient, map_of<T>(p.y, x, strip.map), x, strip);
  float keys[CHANNELS][STRIP] = {}, all_keys[CHANNELS][STRIP] = {}, down[K][STRIP] = {};
#pragma unroll 1
  for (int a = 0; a < K; ++a) {
    const int row = strip.row + a - K / 2, first = row * x.width + strip.column - Seen::LEFT;
    bool inside[Seen::SPAN / VEC];
    Seen::inside(inside, x, strip, row);
    const T* const k = map_of<T>(p.k, x, strip.map) + first;
    float attention[K][STRIP], products[K][STRIP], along[STRIP], all_along[STRIP];
    column_logits.start(attention, q, tables.row, a, x.masked && (row < 0 || row >= x.height), strip);
    add_products<K, VEC>(attention, q, k, x, strip, inside);
#pragma unroll
    for (int b = 0; b < K; ++b)
#pragma unroll
      for (int pixel = 0; pixel < STRIP; ++pixel) products[b][pixel] = start[pixel];
    add_products<K, VEC>(products, gradient, map_of<T>(p.v, x, strip.map) + first, x, strip, inside);
#pragma unroll
    for (int pixel = 0; pixel < STRIP; ++pixel) along[pixel] = all_along[pixel] = 0;
#pragma unroll
    for (int b = 0; b < K; ++b) {
      sum_shares(attention[b], p.shares);
      sum_shares(products[b], p.shares);
#pragma unroll
      for (int pixel = 0; pixel < STRIP; ++pixel) {
        attention[b][pixel] = unscaled_share(attention[b][pixel], highest[pixel]);
        products[b][pixel] *= attention[b][pixel];
        along[pixel] += products[b][pixel];
        all_along[pixel] += attention[b][pixel];
        down[b][pixel] += products[b][pixel];
      }
    }
    if (strip.share == 0) {
      store_floats<float>(row_slopes + a * STRIP * slots, along);
      store_floats<float>(row_attention + a * STRIP * slots, all_along);
#pragma unroll
      for (int b = 0; b < K; ++b) {
        float all_down[STRIP] = {};
        if (a > 0) load_floats<float>(all_down, column_slopes + b * STRIP * slots);
#pragma unroll
        for (int pixel = 0; pixel < STRIP; ++pixel) all_down[pixel] += attention[b][pixel];
        store_floats<float>(column_slopes + b * STRIP * slots, all_down);
      }
    }
    add_both_weighted<K, VEC>(keys, products, all_keys, attention, k, x, strip, inside);
  }
  __syncwarp();
  float off[STRIP] = {}, scale[STRIP] = {};
#pragma unroll
  for (int a = 0; a < K; ++a) {
    float along[STRIP], all_along[STRIP];
    load_floats<float>(along, row_slopes + a * STRIP * slots);
    load_floats<float>(all_along, row_attention + a * STRIP * slots);
#pragma unroll
    for (int pixel = 0; pixel < STRIP; ++pixel) {
      off[pixel] += along[pixel];
      scale[pixel] += all_along[pixel];
    }
  }
  // Before sums along rows become slopes.
  __syncwarp();
#pragma unroll
  for (int pixel = 0; pixel < STRIP; ++pixel) {
    // The sum is zero where a strip reaches out of the image and nothing there is a key.
    scale[pixel] = scale[pixel] > 0 ? 1 / scale[pixel] : 0;
    off[pixel] *= scale[pixel];
  }
  sum_shares(start, p.shares);
  if (strip.share == 0) {
    float weighted[STRIP];
#pragma unroll
    for (int pixel = 0; pixel < STRIP; ++pixel) weighted[pixel] = off[pixel] - start[pixel];
    float* const sums = p.sums + 2 * static_cast<long long>(strip.map) * plane + at;
    store_strip<VEC>(sums, scale, columns);
    store_strip<VEC>(sums + plane, weighted, columns);
#pragma unroll
    for (int shift = 0; shift < K; ++shift) {
      float along[STRIP], all_along[STRIP], all_down[STRIP];
      load_floats<float>(along, row_slopes + shift * STRIP * slots);
      load_floats<float>(all_along, row_attention + shift * STRIP * slots);
      load_floats<float>(all_down, column_slopes + shift * STRIP * slots);
#pragma unroll
      for (int pixel = 0; pixel < STRIP; ++pixel) {
        along[pixel] = fmaf(-off[pixel], all_along[pixel], along[pixel]) * scale[pixel];
        down[shift][pixel] = fmaf(-off[pixel], all_down[pixel], down[shift][pixel]) * scale[pixel];
      }
      store_floats<float>(row_slopes + shift * STRIP * slots, along);
      store_floats<float>(column_slopes + shift * STRIP * slots, down[shift]);
    }
  }
#pragma unroll
  for (int e = 0; e < CHANNELS; ++e)
#pragma unroll
    for (int pixel = 0; pixel < STRIP; ++pixel)
      keys[e][pixel] = fmaf(-off[pixel], all_keys[e][pixel], keys[e][pixel]) * scale[pixel];
  __syncwarp();

  // What the embeddings give the query and get from it.
  float grad_embedding[CHANNELS][K];
#pragma unroll
  for (int e = 0; e < CHANNELS; ++e) {
    const int channel = strip.channel + e;
    const float* const slopes = channel < x.channels / 2 ? row_slopes : column_slopes;
    const float* const table = channel < x.channels / 2 ? tables.row : tables.column;
#pragma unroll
    for (int shift = 0; shift < K; ++shift) {
      float some[STRIP];
      load_floats<float>(some, slopes + shift * STRIP * slots);
      grad_embedding[e][shift] = 0;
#pragma unroll
      for (int pixel = 0; pixel < STRIP; ++pixel) {
        grad_embedding[e][shift] = fmaf(q[e][pixel], some[pixel], grad_embedding[e][shift]);
        keys[e][pixel] = fmaf(table[channel * K + shift], some[pixel], keys[e][pixel]);
      }
    }
  }
  if (p.grad_q) {
    T* const to = map_of<T>(p.grad_q, x, strip.map) + strip.channel * plane + at;
#pragma unroll
    for (int e = 0; e < CHANNELS; ++e)
      if (strip.channel + e < x.channels) store_strip<VEC>(to + e * plane, keys[e], columns);
  }
  if (!p.partial) return;

  // Sums over the strips of a warp, then over warps, always in the same order.
  for (int distance = 1; distance * p.shares < 32; distance *= 2)
#pragma unroll
    for (int e = 0; e < CHANNELS; ++e)
#pragma unroll
      for (int shift = 0; shift < K; ++shift)
        grad_embedding[e][shift] += __shfl_xor_sync(0xffffffffu, grad_embedding[e][shift], distance);
  __syncthreads();
  if (strip.slot % (32 / p.shares) == 0) {
    float* const mine = memory + (threadIdx.x / 32 * padded + strip.channel) * K;
#pragma unroll
    for (int e = 0; e < CHANNELS; ++e)
#pragma unroll
      for (int shift = 0; shift < K; ++shift) mine[e * K + shift] = grad_embedding[e][shift];
  }
  __syncthreads();
  for (int i = threadIdx.x; i < x.channels * K; i += STRIP_THREADS) {
    float sum = 0;
#pragma unroll
    for (int warp = 0; warp < WARPS; ++warp) sum += memory[warp * padded * K + i];
    p.partial[static_cast<long long>(blockIdx.x) * x.channels * K + i] = sum;
  }
}

// sums[c][pixel] += over channels, the query at the column of c times the embedding of its tap, in a row of taps.
template <int K, int VEC, int CHANNELS, typename T>
DEVICE void add_positions(float (&sums)[K][STRIP], const T* q, const float* embeddings, const Extents& x,
                          const Strip& strip, const bool (&inside)[Columns<K, VEC>::SPAN / VEC]) {
  typedef Columns<K, VEC> Seen;
#pragma unroll
  for (int e = 0; e < CHANNELS; ++e) {
    float query[Seen::SPAN];
    load_row<VEC>(query, q + channel_offset(x, strip, e), inside);
#pragma unroll
    for (int c = 0; c < K; ++c) {
      const float embedding = embeddings[e * K * K + K - 1 - c];
#pragma unroll
      for (int pixel = 0; pixel < STRIP; ++pixel)
        sums[c][pixel] = fmaf(query[Seen::SHIFT + pixel + c], embedding, sums[c][pixel]);
    }
  }
}

struct KeyBackward {
  const void *gradient, *q, *k, *v, *rel_h, *rel_w;
  const float *highest, *sums;  // of each query, as above
  void *grad_k, *grad_v;        // or null
  Extents extents;
  int shares, tiles;
};

// A key and the query `c` columns right of the window's left edge are tap K - 1 - c of that query, so that the queries
// of a strip's keys are read as the keys of a strip's queries are.
template <typename T, int K, int VEC>
__global__ void __launch_bounds__(STRIP_THREADS, 1) small_key_backward(const KeyBackward p) {
  constexpr int CHANNELS = BACKWARD_CHANNELS;
  typedef Columns<K, VEC> Seen;
  // Embeddings: [channel][tap]. Where a thread has channels of both halves, of the first and then of the second.
  SHARED_MEMORY(float, positions);
  const Extents& x = p.extents;
  const Strip strip = Strip::at(x, p.shares, p.tiles, CHANNELS);
  const int plane = x.height * x.width, padded = p.shares * CHANNELS;
  const auto rel = Embeddings<T>::of(p.rel_h, p.rel_w, x, strip.map);
  const bool mixed = rel.half % CHANNELS;
  for (int i = threadIdx.x; i < (mixed ? 2 : 1) * padded * K * K; i += STRIP_THREADS) {
    const int row = i / (K * K), tap = i - row * (K * K), second = row >= padded, channel = second ? row - padded : row;
    const bool has = channel < x.channels && (!mixed || second == (channel >= rel.half));
    positions[i] = has ? rel.at(channel, tap / K, tap % K) : 0.0f;
  }
  __syncthreads();

  float k[CHANNELS][STRIP], v[CHANNELS][STRIP], grad_k[CHANNELS][STRIP], grad_v[CHANNELS][STRIP];
  load_strip<VEC>(k, map_of<T>(p.k, x, strip.map), x, strip);
  load_strip<VEC>(v, map_of<T>(p.v, x, strip.map), x, strip);
#pragma unroll
  for (int e = 0; e < CHANNELS; ++e)
#pragma unroll
    for (int pixel = 0; pixel < STRIP; ++pixel) grad_k[e][pixel] = grad_v[e][pixel] = 0;

#pragma unroll 1
  for (int a = 0; a < K; ++a) {
    const int row = strip.row + K / 2 - a, first = row * x.width + strip.column - Seen::LEFT;
    const T *q = map_of<T>(p.q, x, strip.map) + first, *gradient = map_of<T>(p.gradient, x, strip.map) + first;
    bool inside[Seen::SPAN / VEC];
    Seen::inside(inside, x, strip, row);
    float attention[K][STRIP], slopes[K][STRIP];
#pragma unroll
    for (int c = 0; c < K; ++c)
#pragma unroll
      for (int pixel = 0; pixel < STRIP; ++pixel) attention[c][pixel] = slopes[c][pixel] = 0;
    const float* const embeddings = positions + (strip.channel * K + a) * K;
    add_positions<K, VEC, CHANNELS>(attention, q, embeddings, x, strip, inside);
    if (mixed) {
      add_positions<K, VEC, CHANNELS>(slopes, q, embeddings + padded * K * K, x, strip, inside);
#pragma unroll
      for (int c = 0; c < K; ++c)
#pragma unroll
        for (int pixel = 0; pixel < STRIP; ++pixel) attention[c][pixel] += slopes[c][pixel];
    }
    add_products<K, VEC>(attention, k, q, x, strip, inside);
    // There are no queries outside the image: a scale of zero leaves them no attention to give.
    float highest[Seen::SPAN], scale[Seen::SPAN];
    const long long start = static_cast<long long>(strip.map) * plane;
    const float* const sums = p.sums + 2 * start + first;
    load_row<VEC>(highest, p.highest + start + first, inside);
    load_row<VEC>(scale, sums, inside);
#pragma unroll
    for (int c = 0; c < K; ++c) {
      sum_shares(attention[c], p.shares);
#pragma unroll
      for (int pixel = 0; pixel < STRIP; ++pixel)
        attention[c][pixel] = unscaled_share(attention[c][pixel], highest[Seen::SHIFT + pixel + c]) *
                              scale[Seen::SHIFT + pixel + c];
    }

#pragma unroll
    for (int c = 0; c < K; ++c)
#pragma unroll
      for (int pixel = 0; pixel < STRIP; ++pixel) slopes[c][pixel] = 0;
    add_products<K, VEC>(slopes, v, gradient, x, strip, inside);
    float weighted[Seen::SPAN];
    load_row<VEC>(weighted, sums + plane, inside);
#pragma unroll
    for (int c = 0; c < K; ++c) {
      sum_shares(slopes[c], p.shares);
#pragma unroll
      for (int pixel = 0; pixel < STRIP; ++pixel)
        slopes[c][pixel] = attention[c][pixel] * (slopes[c][pixel] - weighted[Seen::SHIFT + pixel + c]);
    }
    add_weighted<K, VEC>(grad_k, slopes, q, x, strip, inside);
    add_weighted<K, VEC>(grad_v, attention, gradient, x, strip, inside);
  }

  const int at = strip.channel * plane + strip.row * x.width + strip.column;
  const int columns = strip.inside ? x.width - strip.column : 0;
#pragma unroll
  for (int e = 0; e < CHANNELS; ++e)
    if (strip.channel + e < x.channels) {
      if (p.grad_k) store_strip<VEC>(map_of<T>(p.grad_k, x, strip.map) + at + e * plane, grad_k[e], columns);
      if (p.grad_v) store_strip<VEC>(map_of<T>(p.grad_v, x, strip.map) + at + e * plane, grad_v[e], columns);
    }
}
