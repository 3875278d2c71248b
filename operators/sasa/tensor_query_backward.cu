// Gradients that each query owns, on tensor cores: its own, and its share of the embeddings'. In 16 bits, as in
// tensor_window.cu 16 queries a warp.
//
// The attention is computed again from the saved logarithms, and with its gradient it stays in registers: one pass is
// enough for the sum over taps that slopes, the gradients of the logits, need. All sums are floats. Where slopes become
// factors they are split into two numbers of 16 bits: they cancel, and roundings of each would be more than the sum's.
//
// Predicted bound on an H200 at k = 7: instructions, 2.4 clocks an output at 8 channels and 1.0 at 64; memory asks for
// 0.7. See README.md.
#include "tensor_band.cuh"

struct TensorQueryBackward {
  const void *gradient, *q, *k, *v, *rel_h, *rel_w;
  const float* lse;
  void* grad_q;     // or null
  float* weighted;  // [images * heads, height, width]: sum over taps of attention times its gradient
  float* partial;   // [images * heads, tiles, channels, window]: embeddings' gradient, by block; or null
  Extents extents;
  int tiles_across, tiles;
};

// Eight numbers of each of four neighbouring lanes, summed over those lanes: two sums for each lane.
DEVICE void scatter_sums(float (&sums)[2], const float (&numbers)[8], int lane) {
  float half[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float kept = lane & 2 ? numbers[4 + i] : numbers[i], given = lane & 2 ? numbers[i] : numbers[4 + i];
    half[i] = kept + __shfl_xor_sync(0xffffffffu, given, 2);
  }
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const float kept = lane & 1 ? half[2 + i] : half[i], given = lane & 1 ? half[i] : half[2 + i];
    sums[i] = kept + __shfl_xor_sync(0xffffffffu, given, 1);
  }
}

// The transpose of a left factor [16 pixels][16]: a left factor [16][16 pixels]. Exact, as it multiplies with ones.
template <typename T>
DEVICE void transpose(unsigned (&turned)[4], const unsigned (&factor)[4], int lane) {
  const T one = from_float<T>(1), zero = from_float<T>(0);
  const int beside = lane / 4 - 2 * (lane % 4);
  const unsigned diagonal = two(beside == 0 ? one : zero, beside == 1 ? one : zero);
  const unsigned identity[4] = {diagonal, 0, 0, diagonal};
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    float product[4] = {};
    const unsigned right[2] = {factor[h], factor[2 + h]};
    multiply_tiles<T>(product, identity, right);
    const float upper[2] = {product[0], product[1]}, lower[2] = {product[2], product[3]};
    turned[2 * h] = pair_of<T>(upper);
    turned[2 * h + 1] = pair_of<T>(lower);
  }
}

// sums[shift][channel] += each left factor [16 shifts][16 pixels of a unit] times those pixels.
template <typename T, int D, int N>
DEVICE void multiply_pixels(float (&sums)[D / 8][4], const unsigned (&left)[N][4], const T* map, const Extents& x,
                            const Unit& unit, int lane) {
  const int mine = lane / 4, column = unit.column - mine + 2 * (lane % 4), plane = x.height * x.width;
  const T* from = map + (own_channel<D>(x, mine) * plane + unit.row * x.width + column);
  const bool inside[2] = {column < x.width, column + 1 < x.width}, lower = unit.row + 1 < x.height;
  const T zero = from_float<T>(0);
#pragma unroll
  for (int block = 0; block < D / 8; ++block) {
    if (D > 8 && block == D / 16) from -= (D - x.channels) / 2 * plane;
    const bool channel = has_channel<D>(x, 8 * block + mine), has[2] = {channel && inside[0], channel && inside[1]};
    const T* const below = from + x.width;
    const unsigned right[2] = {two(has[0] ? from[0] : zero, has[1] ? from[1] : zero),
                               two(lower && has[0] ? below[0] : zero, lower && has[1] ? below[1] : zero)};
#pragma unroll
    for (int n = 0; n < N; ++n) multiply_tiles<T>(sums[block], left[n], right);
    from += 8 * plane;
  }
}

template <typename T, int D, int K>
__global__ void __launch_bounds__(THREADS) tensor_query_backward(const TensorQueryBackward p) {
  typedef Tile<D, K> Shape;
  SHARED_MEMORY(T, keys);
  T* const values = keys + Shape::MAP;
  T* const embeddings = values + Shape::MAP;
  const Extents& x = p.extents;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const Shape tile = Shape::at(p.tiles_across, p.tiles);
  const int map = tile.map;

  fill_tile(keys, map_of<T>(p.k, x, map), map_of<T>(p.v, x, map), tile, x);
  fill_embeddings<D, K>(embeddings, Embeddings<T>::of(p.rel_h, p.rel_w, x, map), x);
  wait_for_copies<0>();
  __syncthreads();

  const Band<K> band = Band<K>::of(lane);
  float grad_embeddings[D / 8][4] = {};  // [row or column of the window, from 8 on the latter][channel]
  const int units = tile.units(x);
  for (int number = warp; number < units; number += WARPS) {
    const Unit unit = Unit::at(tile, x, number, lane);
    const long long first = static_cast<long long>(map) * x.height * x.width + unit.row * x.width + unit.column;
    Pixels<T, D> queries, gradients;
    queries.load(map_of<T>(p.q, x, map), x, unit, lane);
    gradients.load(map_of<T>(p.gradient, x, map), x, unit, lane);
    auto positions = PositionLogits<K>::of(queries, embeddings, band, tile, unit, x, lane);
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      // Queries outside the image are zeros and so is their gradient: the attention they have adds nothing.
      const float lse = unit.has(x, h) ? p.lse[first + h * x.width] * LOG2_E : 0.0f;
#pragma unroll
      for (int e = 0; e < 2; ++e) positions.column[h][e] -= lse;
    }

    // Row j of the keys is row j of the windows of the upper queries, and j - 1 of the lower.
    float attention[K][2][2], slopes[K][2][2], weighted[2] = {0, 0};
#pragma unroll
    for (int j = 0; j <= K; ++j) {
      float logits[2][4] = {}, products[2][4] = {};
      queries.multiply(logits, keys + unit.corner + j * Shape::COLUMNS, Shape::CHANNEL, lane);
      gradients.multiply(products, values + unit.corner + j * Shape::COLUMNS, Shape::CHANNEL, lane);
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const int a = j - h;
        if (a < 0 || a >= K) continue;
        const float of_row = positions.of_row(a, h, lane);
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          const float logit = fmaf(band.take(logits, h, e), LOG2_E, of_row + positions.column[h][e]);
          attention[a][h][e] = power_of_two(logit);
          slopes[a][h][e] = band.take(products, h, e);
          weighted[h] = fmaf(attention[a][h][e], slopes[a][h][e], weighted[h]);
        }
      }
    }
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      weighted[h] = sum_of_four(weighted[h]);
      if (lane % 4 == 0 && unit.has(x, h)) p.weighted[first + h * x.width] = weighted[h];
    }

    // Sums of the slopes along rows of taps and down columns.
    float sums[D / 8][4] = {}, along[2][8] = {}, down[2][2] = {};
#pragma unroll
    for (int j = 0; j <= K; ++j) {
      unsigned factors[2][4];
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const int a = j - h;
        float slope[2] = {0, 0};
        if (a >= 0 && a < K) {
#pragma unroll
          for (int e = 0; e < 2; ++e) {
            slope[e] = attention[a][h][e] * (slopes[a][h][e] - weighted[h]);
            down[h][e] += slope[e];
          }
          along[h][a] = slope[0] + slope[1];
        }
        unsigned pair, rest;
        two_pairs<T>(pair, rest, slope);
        band.split(factors[0], h, pair);
        band.split(factors[1], h, rest);
      }
      multiply_rows<T, D>(sums, factors, keys + unit.corner + j * Shape::COLUMNS, Shape::CHANNEL, 8, lane);
    }

    // What the embeddings give the queries and get from them: a left factor of 8 rows and 8 columns of the window.
    unsigned factors[2][4];
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      float row[2];
      scatter_sums(row, along[h], lane);
      turn(down[h], lane / 4 + Shape::MARGIN - K / 2, lane);
      two_pairs<T>(factors[0][h], factors[1][h], row);
      two_pairs<T>(factors[0][2 + h], factors[1][2 + h], down[h]);
    }
    unsigned turned[2][4];
#pragma unroll
    for (int part = 0; part < 2; ++part) transpose<T>(turned[part], factors[part], lane);
    if (p.grad_q) {
      multiply_rows<T, D>(sums, factors, embeddings, 8, D * 8, lane);
      const float scale[2] = {1, 1};
      store_pixels<T, D>(map_of<T>(p.grad_q, x, map), sums, scale, x, unit, lane);
    }
    if (p.partial) multiply_pixels<T, D>(grad_embeddings, turned, map_of<T>(p.q, x, map), x, unit, lane);
  }
  if (!p.partial) return;

  // Sums over warps, always in the same order, where the tile was.
  float* const by_warp = reinterpret_cast<float*>(keys);  // [warp][channel][8]
  __syncthreads();
#pragma unroll
  for (int block = 0; block < D / 8; ++block)
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      const int channel = 8 * block + 2 * (lane % 4) + e % 2;
      if (e / 2 == (channel >= D / 2)) by_warp[(warp * D + channel) * 8 + lane / 4] = grad_embeddings[block][e];
    }
  __syncthreads();
  for (int i = threadIdx.x; i < D * K; i += THREADS) {
    const int channel = i / K, shift = i - channel * K;
    if (!has_channel<D>(x, channel)) continue;
    float sum = 0;
#pragma unroll
    for (int other = 0; other < WARPS; ++other) sum += by_warp[(other * D + channel) * 8 + shift];
    const int to = own_channel<D>(x, channel) * K + shift;
    p.partial[static_cast<long long>(blockIdx.x) * x.channels * K + to] = sum;
  }
}
