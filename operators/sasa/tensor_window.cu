// Local attention on tensor cores, in 16 bits, for odd windows up to 7 and heads of 8, 16, 32 or 64 channels.
//
// A warp takes 16 queries, 8 columns of two rows. The windows of 8 neighbouring columns lie in 16 columns of keys, so a
// row of keys makes one product [16 queries x channels] [channels x 16 keys], of which each query keeps its band. The
// scores of all K + 1 rows stay in registers: the softmax is exact and in one pass, and the shares, rounded to 16 bits,
// are the left factor of the product with the values as they lie.
//
// Predicted bound on an H200 at k = 7: special-function units, 112 exponentials a query, at 8 channels; then memory.
#include "window.cuh"

constexpr int THREADS = 128, WARPS = THREADS / 32;

struct TensorForward {
  const void *q, *k, *v, *rel_h, *rel_w;
  void* y;
  float* lse;  // [images * heads, height, width]: logarithm of the softmax's denominator
  Extents extents;
  int tiles_across, tiles;  // of a row of the map, of the map
};

// What a block has in shared memory, in elements: keys and values of its tile and a margin, [channel][row][column].
template <int D, int K>
struct Tile {
  static constexpr int HEIGHT = 8, WIDTH = D <= 16 ? 32 : D == 32 ? 16 : 8;
  static constexpr int MARGIN = 4;  // columns, so that 8 keys are 16 aligned bytes; rows have K / 2
  static constexpr int ROWS = HEIGHT + K - 1, COLUMNS = WIDTH + 2 * MARGIN;
  // An odd number of 16 bytes from channel to channel: the 8 rows of a matrix then lie in different banks.
  static constexpr int CHANNEL = ROWS * COLUMNS / 8 % 2 ? ROWS * COLUMNS : ROWS * COLUMNS + 8;
  static constexpr int UNITS_ACROSS = WIDTH / 8, UNITS = HEIGHT / 2 * UNITS_ACROSS;  // of 16 queries
};

// Copies N values from global to shared memory, or zeros; waits for nothing where the hardware can do that.
template <int N, typename T>
DEVICE void copy_values(T* to, const T* from, bool inside) {
  if constexpr (N == 1) {
    T value = from_float<T>(0.0f);
    if (inside) value = *from;
    *to = value;
  } else {
    copy_async<N * static_cast<int>(sizeof(T))>(to, from, inside);
  }
}

template <typename T, int D, int K, int VEC>
DEVICE void fill_tile(T* keys, T* values, const TensorForward& p, int map, int top, int left) {
  typedef Tile<D, K> Shape;
  constexpr int ACROSS = Shape::COLUMNS / VEC;
  const Extents& x = p.extents;
  const T *k = map_of<T>(p.k, x, map), *v = map_of<T>(p.v, x, map);
  for (int i = threadIdx.x; i < D * Shape::ROWS * ACROSS; i += THREADS) {
    const int line = i / ACROSS, channel = line / Shape::ROWS;
    const int row = line - channel * Shape::ROWS, column = (i - line * ACROSS) * VEC;
    const int from_row = top - K / 2 + row, from_column = left - Shape::MARGIN + column;
    const bool inside = from_row >= 0 && from_row < x.height && from_column >= 0 && from_column < x.width;
    const int from = inside ? (channel * x.height + from_row) * x.width + from_column : 0;
    const int to = channel * Shape::CHANNEL + row * Shape::COLUMNS + column;
    copy_values<VEC>(keys + to, k + from, inside);
    copy_values<VEC>(values + to, v + from, inside);
  }
}

// Embeddings as right factors [D][8]: of rows, zero for the second half of the channels; then of columns.
template <typename T, int D, int K>
DEVICE void fill_embeddings(T* embeddings, const TensorForward& p, int map) {
  const auto rel = Embeddings<T>::of(p.rel_h, p.rel_w, p.extents, map);
  for (int i = threadIdx.x; i < 2 * D * 8; i += THREADS) {
    const int shift = i % 8, channel = i / 8 % D;
    const bool by_column = i >= 8 * D, has = shift < K && by_column == (channel >= D / 2);
    embeddings[i] = from_float<T>(has ? rel.at(channel, shift, shift) : 0.0f);
  }
}

// The queries of a warp as left factors: fragments of 8 channels where a head has no more, else of 16.
template <typename T, int D>
struct Queries {
  static constexpr int STEPS = D == 8 ? 1 : D / 16, WORDS = D == 8 ? 2 : 4;
  unsigned fragment[STEPS][WORDS];

  // `row` and `column` are of the lane's query in the upper of two rows; those outside the image are zero.
  __device__ __forceinline__ void load(const T* q, const Extents& x, int row, int column, int lane) {
    const int plane = x.height * x.width;
#pragma unroll
    for (int step = 0; step < STEPS; ++step)
#pragma unroll
      for (int i = 0; i < WORDS; ++i) {
        fragment[step][i] = 0;
        const int at = (16 * step + 8 * (i / 2) + 2 * (lane % 4)) * plane + (row + i % 2) * x.width + column;
        if (row + i % 2 < x.height && column < x.width) fragment[step][i] = two(q[at], q[at + plane]);
      }
  }

  // sums[n] += queries times the right factor whose column block n of 8 begins 8 * n elements after `factor`, rows
  // `stride` elements apart.
  template <int N>
  __device__ __forceinline__ void multiply(float (&sums)[N][4], const T* factor, int stride, int lane) const {
    const SharedAddress base = shared_address(factor);
    constexpr int SIZE = static_cast<int>(sizeof(T));
#pragma unroll
    for (int step = 0; step < STEPS; ++step) {
      if constexpr (D == 8) {
        unsigned words[N];
        load_matrices_transposed(words, base + (lane % 8 * stride + lane / 8 % N * 8) * SIZE);
#pragma unroll
        for (int n = 0; n < N; ++n) {
          const unsigned right[1] = {words[n]};
          multiply_tiles<T>(sums[n], fragment[step], right);
        }
      } else {
        unsigned words[2 * N];
        const int channel = 16 * step + lane % 16;
        load_matrices_transposed(words, base + (channel * stride + lane / 16 % N * 8) * SIZE);
#pragma unroll
        for (int n = 0; n < N; ++n) {
          const unsigned right[2] = {words[2 * n], words[2 * n + 1]};
          multiply_tiles<T>(sums[n], fragment[step], right);
        }
      }
    }
  }
};

template <typename T, int D, int K, int VEC>
__global__ void __launch_bounds__(THREADS) tensor_forward(const TensorForward p) {
  typedef Tile<D, K> Shape;
  // Positions' logits of a warp's 16 queries: K by row, then K by column; an odd number from query to query.
  constexpr int POSITIONS = 2 * K + 1;
  SHARED_MEMORY(T, keys);
  T* const values = keys + D * Shape::CHANNEL;
  T* const embeddings = values + D * Shape::CHANNEL;
  const Extents& x = p.extents;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, map = blockIdx.x / p.tiles;
  const int tile = blockIdx.x - map * p.tiles;
  const int top = tile / p.tiles_across * Shape::HEIGHT, left = tile % p.tiles_across * Shape::WIDTH;
  float* const positions = reinterpret_cast<float*>(embeddings + 2 * D * 8) + warp * 16 * POSITIONS;

  fill_tile<T, D, K, VEC>(keys, values, p, map, top, left);
  fill_embeddings<T, D, K>(embeddings, p, map);
  commit_copies();
  wait_for_copies<0>();
  __syncthreads();

  const int mine = lane / 4, pair = 2 * (lane % 4);  // the lane's query column, and the first of its keys or channels
  for (int unit = warp; unit < Shape::UNITS; unit += WARPS) {
    const int below = unit / Shape::UNITS_ACROSS * 2, across = unit % Shape::UNITS_ACROSS * 8;
    const int row = top + below, column = left + across + mine;
    if (row >= x.height || left + across >= x.width) continue;

    Queries<T, D> queries;
    queries.load(map_of<T>(p.q, x, map), x, row, column, lane);
    float by_row[1][4] = {}, by_column[1][4] = {};
    queries.multiply(by_row, embeddings, 8, lane);
    queries.multiply(by_column, embeddings + D * 8, 8, lane);
    __syncwarp();
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      const int shift = pair + e % 2;
      float* const query = positions + (mine + 8 * (e / 2)) * POSITIONS + shift;
      if (shift < K) query[0] = by_row[0][e];
      if (shift < K) query[K] = by_column[0][e];
    }
    __syncwarp();

    // What the column of each of the lane's keys adds; outside the window it leaves the key out.
    float added[2][4];
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      const int key = 8 * (e / 2) + pair + e % 2, b = key - Shape::MARGIN - mine + K / 2;
      const int key_column = left + across - Shape::MARGIN + key;
      const bool counts = b >= 0 && b < K && !(x.masked && (key_column < 0 || key_column >= x.width));
#pragma unroll
      for (int h = 0; h < 2; ++h)
        added[h][e] = counts ? positions[(mine + 8 * h) * POSITIONS + K + b] : LEFT_OUT;
    }

    // Row j of the keys is row j of the windows of the upper queries, and j - 1 of the lower: half h of the scores.
    float scores[K + 1][2][4], most[2] = {LEFT_OUT, LEFT_OUT}, total[2] = {0, 0};
    const int corner = below * Shape::COLUMNS + across;
#pragma unroll
    for (int j = 0; j <= K; ++j) {
      const int key_row = row + j - K / 2;
      const bool left_out = x.masked && (key_row < 0 || key_row >= x.height);
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        if (j - h < 0 || j - h >= K) {
          scores[j][0][2 * h] = scores[j][0][2 * h + 1] = scores[j][1][2 * h] = scores[j][1][2 * h + 1] = 0;
          continue;
        }
        const float of_row = left_out ? LEFT_OUT : positions[(mine + 8 * h) * POSITIONS + j - h];
#pragma unroll
        for (int e = 0; e < 4; ++e) scores[j][e / 2][2 * h + e % 2] = of_row + added[h][e];
      }
      queries.multiply(scores[j], keys + corner + j * Shape::COLUMNS, Shape::CHANNEL, lane);
    }
#pragma unroll
    for (int h = 0; h < 2; ++h) {
#pragma unroll
      for (int a = 0; a < K; ++a)
#pragma unroll
        for (int e = 0; e < 4; ++e) most[h] = fmaxf(most[h], scores[a + h][e / 2][2 * h + e % 2]);
#pragma unroll
      for (int distance = 1; distance < 4; distance *= 2)
        most[h] = fmaxf(most[h], __shfl_xor_sync(0xffffffffu, most[h], distance));
      const float least = -most[h] * LOG2_E;
#pragma unroll
      for (int a = 0; a < K; ++a)
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          float& score = scores[a + h][e / 2][2 * h + e % 2];
          score = power_of_two(fmaf(score, LOG2_E, least));
          total[h] += score;
        }
#pragma unroll
      for (int distance = 1; distance < 4; distance *= 2)
        total[h] += __shfl_xor_sync(0xffffffffu, total[h], distance);
    }

    float sums[D / 8][4] = {};
#pragma unroll
    for (int j = 0; j <= K; ++j) {
      unsigned shares[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int h = i % 2;
        const bool has = j - h >= 0 && j - h < K;
        shares[i] = has ? two(from_float<T>(scores[j][i / 2][2 * h]), from_float<T>(scores[j][i / 2][2 * h + 1])) : 0;
      }
      // Values as right factor [16 keys][channels]: their rows are channels, so nothing is transposed.
      const SharedAddress base = shared_address(values + corner + j * Shape::COLUMNS);
      constexpr int BLOCKS = D == 8 ? 1 : 2;
#pragma unroll
      for (int first = 0; first < D; first += 8 * BLOCKS) {
        unsigned words[2 * BLOCKS];
        const int channel = first + lane / 16 % BLOCKS * 8 + lane % 8, key = lane / 8 % 2 * 8;
        load_matrices(words, base + (channel * Shape::CHANNEL + key) * static_cast<int>(sizeof(T)));
#pragma unroll
        for (int block = 0; block < BLOCKS; ++block) {
          const unsigned right[2] = {words[2 * block], words[2 * block + 1]};
          multiply_tiles<T>(sums[first / 8 + block], shares, right);
        }
      }
    }

    const int plane = x.height * x.width;
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      if (row + h >= x.height || column >= x.width) continue;
      const int at = (row + h) * x.width + column;
      if (pair == 0) p.lse[static_cast<long long>(map) * plane + at] = most[h] + logf(total[h]);
      T* const y = map_of<T>(p.y, x, map) + at;
      const float scale = 1 / total[h];
#pragma unroll
      for (int block = 0; block < D / 8; ++block)
#pragma unroll
        for (int e = 0; e < 2; ++e)
          y[(8 * block + pair + e) * plane] = from_float<T>(sums[block][2 * h + e] * scale);
    }
  }
}
