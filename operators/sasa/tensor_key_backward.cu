// Gradients that each key owns, on tensor cores: it gathers from the queries whose windows hold it, so that nothing is
// added to by two threads. In 16 bits, as in tensor_window.cu 16 pixels a warp; keys take the place of queries.
//
// The attention is computed again from the saved logarithms, a row of 16 queries at a time, and is the left factor of
// what comes back as it falls out of the product. Slopes, the gradients of the logits, are split as in
// tensor_query_backward.cu.
//
// Predicted bound on an H200 at k = 7: instructions, 1.1 clocks an output at 8 channels, and tensor cores, 0.5 at 64;
// memory asks for 0.4. See README.md.
#include "tensor_band.cuh"

struct TensorKeyBackward {
  const void *gradient, *q, *k, *v, *rel_h, *rel_w;
  const float *lse, *weighted;  // `weighted` may be null where grad_k is
  void *grad_k, *grad_v;        // or null
  Extents extents;
  int tiles_across, tiles;
};

// Embeddings as left factors, a word for each 8 channels of their half: its row s is shift s.
template <typename T, int D, int K>
struct PositionFactors {
  static constexpr int WORDS = D == 8 ? 1 : D / 16;
  unsigned rows[WORDS], columns[WORDS];

  DEVICE PositionFactors of(const Embeddings<T>& rel, const Extents& x, int lane) {
    PositionFactors factors;
    const int shift = lane / 4, pair = 2 * (lane % 4);
#pragma unroll
    for (int word = 0; word < WORDS; ++word) {
      T row[2], column[2];
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        // Eight channels are both halves of a head that has no more.
        const int of_row = 8 * word + pair + e, of_column = D == 8 ? of_row - D / 2 : of_row;
        const bool has = shift < K && has_channel<D>(x, of_row);
        row[e] = column[e] = from_float<T>(0);
        if (has && of_row < D / 2) row[e] = rel.row[of_row * K + shift];
        if (has && of_column >= 0) column[e] = rel.column[of_column * K + shift];
      }
      factors.rows[word] = two(row[0], row[1]);
      factors.columns[word] = two(column[0], column[1]);
    }
    return factors;
  }
};

// A key and its query in row j of 8: tap K - 1 - j of that query for the upper key, and K - j for the lower.
template <typename T, int D, int K>
__global__ void __launch_bounds__(THREADS) tensor_key_backward(const TensorKeyBackward p) {
  typedef Tile<D, K> Shape;
  SHARED_MEMORY(T, queries);
  T* const gradients = queries + Shape::MAP;
  // Of each query: the logarithm of the denominator, in units of log 2, and the weighted sum of its slopes.
  float* const statistics = reinterpret_cast<float*>(gradients + Shape::MAP);
  const Extents& x = p.extents;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, mine = lane / 4, pair = 2 * (lane % 4);
  const Shape tile = Shape::at(p.tiles_across, p.tiles);
  const int map = tile.map;

  fill_tile(queries, map_of<T>(p.q, x, map), map_of<T>(p.gradient, x, map), tile, x);
  for (int i = threadIdx.x; i < Shape::ROWS * Shape::COLUMNS; i += THREADS) {
    const int row = tile.top - K / 2 + i / Shape::COLUMNS, column = tile.left - Shape::MARGIN + i % Shape::COLUMNS;
    const bool inside = row >= 0 && row < x.height && column >= 0 && column < x.width;
    const long long at = static_cast<long long>(map) * x.height * x.width + row * x.width + column;
    // Queries outside the image are zeros and so is their gradient: the attention they have adds nothing.
    const float both[2] = {inside ? p.lse[at] * LOG2_E : 0.0f, inside && p.weighted ? p.weighted[at] : 0.0f};
    store_floats<float>(statistics + 2 * i, both);
  }
  const auto embeddings = PositionFactors<T, D, K>::of(Embeddings<T>::of(p.rel_h, p.rel_w, x, map), x, lane);
  wait_for_copies<0>();
  __syncthreads();

  const Band<K> band = Band<K>::of(lane);
  // Column logits of a query lie in the lane of the tap, and are needed in the lane of the key.
  int from[2];
  bool gives_first[2];
#pragma unroll
  for (int e = 0; e < 2; ++e) {
    const int shift = K / 2 + Shape::MARGIN + mine - pair - e & 7;
    const int key = mine + pair + e - K / 2 - Shape::MARGIN & 7;
    from[e] = 4 * shift + lane % 4;
    gives_first[e] = pair + e - key >= Shape::MARGIN - K / 2;
  }
  const int units = tile.units(x);
  for (int number = warp; number < units; number += WARPS) {
    const Unit unit = Unit::at(tile, x, number, lane);
    Pixels<T, D> keys, values;
    keys.load(map_of<T>(p.k, x, map), x, unit, lane);
    values.load(map_of<T>(p.v, x, map), x, unit, lane);
    float grad_k[D / 8][4] = {}, grad_v[D / 8][4] = {};
    unsigned lower[PositionFactors<T, D, K>::WORDS] = {};
#pragma unroll
    for (int j = 0; j <= K; ++j) {
      // Nothing to wait for: it keeps the compiler from loading for later rows before registers are free for them.
      __syncwarp();
      const T* const query_row = queries + unit.corner + j * Shape::COLUMNS;
      const T* const gradient_row = gradients + unit.corner + j * Shape::COLUMNS;
      // Rows of the upper keys' tap, and of the lower keys', which the row before had above.
      unsigned upper[PositionFactors<T, D, K>::WORDS];
#pragma unroll
      for (int word = 0; word < PositionFactors<T, D, K>::WORDS; ++word)
        upper[word] = j < K ? __shfl_sync(0xffffffffu, embeddings.rows[word], 4 * (K - 1 - j) + lane % 4) : 0;

      float logits[2][4] = {}, by_column[2][4] = {}, products[2][4] = {};
#pragma unroll
      for (int step = 0; step < Pixels<T, D>::STEPS; ++step) {
        unsigned right[2][Pixels<T, D>::WORDS / 2];
        Pixels<T, D>::load_right(right, query_row, Shape::CHANNEL, step, lane);
#pragma unroll
        for (int n = 0; n < 2; ++n) {
          multiply_tiles<T>(logits[n], keys.fragment[step], right[n]);
          if constexpr (D <= 16) {
            const unsigned row[2] = {upper[0], lower[0]}, column[2] = {embeddings.columns[0], 0};
            const unsigned of_row[1] = {right[n][0]}, of_column[1] = {right[n][D / 16]};
            multiply_tiles<T>(logits[n], row, of_row);
            multiply_tiles<T>(by_column[n], column, of_column);
          } else if (step < D / 32) {
            const int word = 2 * step;
            const unsigned row[4] = {upper[word], lower[word], upper[word + 1], lower[word + 1]};
            multiply_tiles<T>(logits[n], row, right[n]);
          } else {
            const int word = 2 * step - D / 16;
            const unsigned column[4] = {embeddings.columns[word], 0, embeddings.columns[word + 1], 0};
            multiply_tiles<T>(by_column[n], column, right[n]);
          }
        }
      }
#pragma unroll
      for (int word = 0; word < PositionFactors<T, D, K>::WORDS; ++word) lower[word] = upper[word];
      values.multiply(products, gradient_row, Shape::CHANNEL, lane);

      float attention[2][2] = {}, slopes[2][2] = {};
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        float of_query[2];
        const int query = unit.corner + j * Shape::COLUMNS + pair + e + (band.first[e] ? 0 : 8);
        load_floats<float>(of_query, statistics + 2 * query);
        const float given = gives_first[e] ? by_column[0][e] : by_column[1][e];
        const float added = fmaf(__shfl_sync(0xffffffffu, given, from[e]), LOG2_E, -of_query[0]);
#pragma unroll
        for (int h = 0; h < 2; ++h) {
          if (j - h < 0 || j - h >= K) continue;
          attention[h][e] = power_of_two(fmaf(band.take(logits, h, e), LOG2_E, added));
          slopes[h][e] = attention[h][e] * (band.take(products, h, e) - of_query[1]);
        }
      }
      unsigned shares[1][4], factors[2][4];
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        unsigned pair, rest;
        two_pairs<T>(pair, rest, slopes[h]);
        band.split(factors[0], h, pair);
        band.split(factors[1], h, rest);
        band.split(shares[0], h, pair_of<T>(attention[h]));
      }
      multiply_rows<T, D>(grad_v, shares, gradient_row, Shape::CHANNEL, 8, lane);
      multiply_rows<T, D>(grad_k, factors, query_row, Shape::CHANNEL, 8, lane);
    }
    const float scale[2] = {1, 1};
    if (p.grad_k) store_pixels<T, D>(map_of<T>(p.grad_k, x, map), grad_k, scale, x, unit, lane);
    if (p.grad_v) store_pixels<T, D>(map_of<T>(p.grad_v, x, map), grad_v, scale, x, unit, lane);
  }
}
