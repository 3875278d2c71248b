// Local attention on tensor cores, in 16 bits, for odd windows up to 7 and heads of up to D channels: 8, 16, 32 or 64.
//
// A warp takes 16 queries, 8 columns of two rows. The windows of 8 neighbouring columns lie in 16 columns of keys, so a
// row of keys makes one product [16 queries x channels] [channels x 16 keys], of which each query keeps its band. The
// scores of all rows stay in registers: the softmax is exact and in one pass, and the shares, rounded to 16 bits, are
// the left factor of the product with the values as they lie.
//
// Predicted bound on an H200 at k = 7: instructions, 1.7 clocks an output at 8 channels and 0.7 at 64; memory asks for
// 0.5. See README.md.
#include "tensor_band.cuh"

struct TensorForward {
  const void *q, *k, *v, *rel_h, *rel_w;
  void* y;
  float* lse;  // [images * heads, height, width]: logarithm of the softmax's denominator
  Extents extents;
  int tiles_across, tiles;  // of a row of the map, of the map
};

template <typename T, int D, int K>
__global__ void __launch_bounds__(THREADS) tensor_forward(const TensorForward p) {
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
  const int units = tile.units(x);
  for (int number = warp; number < units; number += WARPS) {
    const Unit unit = Unit::at(tile, x, number, lane);
    Pixels<T, D> queries;
    queries.load(map_of<T>(p.q, x, map), x, unit, lane);
    const auto positions = PositionLogits<K>::of(queries, embeddings, band, tile, unit, x, lane);

    // Row j of the keys is row j of the windows of the upper queries, and j - 1 of the lower.
    float scores[K][2][2], most[2] = {LEFT_OUT, LEFT_OUT}, total[2] = {0, 0};
#pragma unroll
    for (int j = 0; j <= K; ++j) {
      float products[2][4] = {};
      queries.multiply(products, keys + unit.corner + j * Shape::COLUMNS, Shape::CHANNEL, lane);
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const int a = j - h;
        if (a < 0 || a >= K) continue;
        const float of_row = positions.of_row(a, h, lane);
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          scores[a][h][e] = fmaf(band.take(products, h, e), LOG2_E, of_row + positions.column[h][e]);
          most[h] = fmaxf(most[h], scores[a][h][e]);
        }
      }
    }
#pragma unroll
    for (int h = 0; h < 2; ++h) {
#pragma unroll
      for (int distance = 1; distance < 4; distance *= 2)
        most[h] = fmaxf(most[h], __shfl_xor_sync(0xffffffffu, most[h], distance));
#pragma unroll
      for (int a = 0; a < K; ++a)
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          scores[a][h][e] = power_of_two(scores[a][h][e] - most[h]);
          total[h] += scores[a][h][e];
        }
      total[h] = sum_of_four(total[h]);
    }

    float sums[D / 8][4] = {};
#pragma unroll
    for (int j = 0; j <= K; ++j) {
      unsigned shares[1][4];
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const int a = j - h;
        const bool has = a >= 0 && a < K;
        band.split(shares[0], h, has ? pair_of<T>(scores[a][h]) : 0);
      }
      multiply_rows<T, D>(sums, shares, values + unit.corner + j * Shape::COLUMNS, Shape::CHANNEL, 8, lane);
    }

    const float scale[2] = {__fdividef(1, total[0]), __fdividef(1, total[1])};
    const long long first = static_cast<long long>(map) * x.height * x.width + unit.row * x.width + unit.column;
#pragma unroll
    for (int h = 0; h < 2; ++h)
      if (lane % 4 == 0 && unit.has(x, h)) p.lse[first + h * x.width] = most[h] * LOG_2 + __logf(total[h]);
    store_pixels<T, D>(map_of<T>(p.y, x, map), sums, scale, x, unit, lane);
  }
}
