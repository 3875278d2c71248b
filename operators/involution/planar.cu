// Involution of small maps on tensor cores: 16-bit values, 16 channels in a group, no dilation, stride 1, rows of at
// most 14 pixels.
//
// A block takes all rows of one or more groups, or a strip of one. A row of the result is a sum over the rows that its
// taps reach: 16 channels x such a row, times a matrix that has the taps along a band and zeros beside it. A value that
// is not finite therefore spoils all pixels of the rows that reach it.
#include "planar.cuh"

// Lets of a fragment of TILES * 8 rows k and as many columns n what is in the band: |k - n| <= K / 2, and k < width.
template <int K, int TILES>
struct Band {
  unsigned mask[TILES][TILES];

  __device__ __forceinline__ Band(int width) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int t = 0; t < TILES; ++t)
#pragma unroll
      for (int c = 0; c < TILES; ++c) {
        mask[t][c] = 0;
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          const int k = 8 * c + 2 * (lane % 4) + e, beside = k - (8 * t + lane / 4);
          if (beside >= -(K / 2) && beside <= K / 2 && k < width) mask[t][c] |= 0xffffu << 16 * e;
        }
      }
  }
};

// Two neighbours, of which `columns` exist; both do or neither where rows are whole units of two.
template <int UNIT, typename T>
DEVICE void store_pair(T* to, const float* sums, int columns) {
  if constexpr (UNIT == 2) {
    const float two[2] = {sums[0], sums[1]};
    if (columns > 0) store_floats<T, 2>(to, two);
  } else {
    if (columns > 0) to[0] = from_float<T>(sums[0]);
    if (columns > 1) to[1] = from_float<T>(sums[1]);
  }
}

// The block's THREADS write the rows of a block from shared memory, where they lie as in memory, [group][channel][row]
// [column]: as vectors where there are no others between.
template <int THREADS, typename T>
DEVICE void write_rows(T* to, const T* from, const Planar& p, const PlanarPlace& place) {
  const int plane = p.height * p.width, line = p.rows * p.width, existing = min(line, plane - place.row * p.width);
  const int lines = place.groups * CHANNELS;
  if (p.rows == p.height) {
#pragma unroll 1
    for (int i = threadIdx.x; i < lines / 8 * line; i += THREADS)
      store_vector<T, 8>(to + 8 * i, load_vector<T, 8>(from + 8 * i));
  } else {
#pragma unroll 1
    for (int i = threadIdx.x; i < lines * existing; i += THREADS) {
      const int number = i / existing, along = i - number * existing;
      to[number * plane + along] = from[number * line + along];
    }
  }
}

template <bool TRANSPOSED, int COUNT>
DEVICE void load_taps(unsigned (&taps)[COUNT], SharedAddress row) {
  if constexpr (TRANSPOSED)
    load_matrices_transposed(taps, row);
  else
    load_matrices(taps, row);
}

// Adds to the 16 channels of a row the products of the rows that it reaches and its matrices of taps. Two rows of eight
// columns make the 16 of one product.
template <typename T, int K, int TILES, int UNIT, bool BACK>
DEVICE void multiply_rows(float (&sums)[TILES][4], SharedAddress image, SharedAddress matrix,
                          const Band<K, TILES>& band) {
  constexpr int ROW = TILES * CHUNK * 2, SIZE = Matrices<K, TILES, UNIT>::SIZE * 2;
#pragma unroll
  for (int step = 0; step < K; step += 3 - TILES) {
    if constexpr (TILES == 2) {
      unsigned row[4], taps[4];
      load_matrices(row, image + step * ROW);
      load_taps<!BACK>(taps, matrix + step * SIZE);
#pragma unroll
      for (int t = 0; t < 2; ++t) {
        const unsigned banded[2] = {taps[2 * t] & band.mask[t][0], taps[2 * t + 1] & band.mask[t][1]};
        multiply_tiles<T>(sums[t], row, banded);
      }
    } else if (step + 1 < K) {
      unsigned rows[4], taps[2];
      load_matrices(rows, image + step * ROW);
      load_taps<!BACK>(taps, matrix + step * SIZE);
      const unsigned banded[2] = {taps[0] & band.mask[0][0], taps[1] & band.mask[0][0]};
      multiply_tiles<T>(sums[0], rows, banded);
    } else {
      unsigned row[2], taps[1];
      load_matrices(row, image + step * ROW);
      load_taps<!BACK>(taps, matrix + step * SIZE);
      const unsigned banded[1] = {taps[0] & band.mask[0][0]};
      multiply_tiles<T>(sums[0], row, banded);
    }
  }
}

template <typename T, int K, int TILES, int UNIT, bool BACK>
DEVICE void sum_over_taps(const Planar& p) {
  typedef Matrices<K, TILES, UNIT> Taps;
  constexpr int ROWS = ceil_div(MOST_ROWS, K);
  const PlanarPlace place = planar_place(p);
  const int plane = p.height * p.width, line = p.rows * p.width, half = Taps::half(place.total);
  SHARED_MEMORY(T, shared);
  T* matrices = shared + MARGIN;
  T* image = shared + Taps::size(place.total);

  // The taps are under way while the image is copied.
  TapsOfRows<T, K, TILES, UNIT, BACK> taps;
  taps.load(p, place);
  stage_reached<K, TILES, UNIT>(image, p.left, p, place);
  taps.put(matrices, half);
  __syncthreads();

  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const Band<K, TILES> band(p.width);
  const SharedAddress image_address = shared_address(image + lane / 16 * CHUNK + lane % 16 * 8);
  const int halves = (BACK ? lane / 8 % 2 : lane / 16) * half;
  const int rows = BACK ? lane / 16 * 8 + lane % 8 : lane % 16;
  const SharedAddress taps_address = shared_address(matrices + (TILES == 2 ? halves + rows * 8 : lane % 16 * 8));
  float sums[ROWS][TILES][4] = {};
#pragma unroll
  for (int i = 0; i < ROWS; ++i) {
    const int number = warp + i * K, group = number * p.per_row >> 16;
    if (number >= place.total) break;
    multiply_rows<T, K, TILES, UNIT, BACK>(sums[i], image_address + (number + group * (K / 2)) * TILES * CHUNK * 2,
                                           taps_address + number * Taps::PITCH * 2, band);
  }
  // Nobody needs taps any more: the sums take their place, as they are to lie in memory.
  __syncthreads();
#pragma unroll
  for (int i = 0; i < ROWS; ++i) {
    const int number = warp + i * K, group = number * p.per_row >> 16;
    if (number >= place.total) break;
    T* to = shared + (group * (CHANNELS - 1) + lane / 4) * line + number * p.width + 2 * (lane % 4);
#pragma unroll
    for (int t = 0; t < TILES; ++t)
#pragma unroll
      for (int below = 0; below < 2; ++below)
        store_pair<UNIT>(to + 8 * below * line + 8 * t, sums[i][t] + 2 * below, p.width - 8 * t - 2 * (lane % 4));
  }
  __syncthreads();
  T* result = of_group<T>(p.result, place.group, CHANNELS * plane) + place.row * p.width;
  write_rows<32 * K>(result, shared, p, place);
}

// [N, C, H, W] of x [N, C, H, W] and weight [N, G, K, K, H, W], of TILES * 8 columns, 14 at most. block: 32 * K.
//
// Predicted bound on an H200: memory, if not by much. With K = 7 an output takes 10 bytes, 0.62 cycles of a
// multiprocessor; at 14x14 48 thread-instructions, 0.38, and 50 bytes of shared memory, 0.40; at 7x7, where pixels are
// loaded one by one, 64 thread-instructions, 0.50, and 53 bytes, 0.42.
template <typename T, int K, int TILES, int UNIT>
__global__ void __launch_bounds__(32 * K) planar_forward(const Planar p) {
  sum_over_taps<T, K, TILES, UNIT, false>(p);
}

// [N, C, H, W] of gradient [N, C, H, W] and weight: the same with every matrix transposed.
template <typename T, int K, int TILES, int UNIT>
__global__ void __launch_bounds__(32 * K) planar_input_gradient(const Planar p) {
  sum_over_taps<T, K, TILES, UNIT, true>(p);
}

// Gradients of taps in shared memory: [tap][row of pixels][column], lines PITCH apart. An odd number of vectors, so that
// a store that walks a band diagonally touches no bank twice.
template <int TILES>
struct TapLines {
  static constexpr int PITCH = TILES == 1 ? 120 : 200;
  static_assert(PITCH >= MOST_ROWS * (TILES == 1 ? 8 : 14) && PITCH / 8 % 2, "lines are long enough and odd");
};

// The block's THREADS write the taps of `groups` groups, `line` pixels each, which follow each other in memory and begin
// `before` values after a vector does. `per_line` is 2^21 / line, rounded up.
template <int THREADS, int TAPS, int PITCH, int UNIT, typename T>
DEVICE void write_taps(T* to, const T* from, int before, int groups, int line, unsigned per_line) {
  const int end = groups * TAPS * line;
#pragma unroll 1
  for (int first = 8 * threadIdx.x - before; first < end; first += 8 * THREADS) {
    if (first >= 0 && first + 8 <= end && line >= 8) {
      const int number = first * per_line >> 21, group = number / TAPS, tap = number - group * TAPS;
      const int left = line * (number + 1) - first;
      const T* source = from + tap * PITCH + (group + 1) * line - left;
      // From the end of a line to the beginning of the next: another tap, or the first of the next group.
      const T* next = source + (tap + 1 < TAPS ? PITCH - line : -(TAPS - 1) * PITCH);
      Vector<T, UNIT> units[8 / UNIT];
#pragma unroll
      for (int u = 0; u < 8 / UNIT; ++u) units[u] = load_vector<T, UNIT>((UNIT * u < left ? source : next) + UNIT * u);
      store_vector<T, 8>(to + first, joined<T>(units));
      continue;
    }
#pragma unroll 1
    for (int at = max(first, 0); at < min(first + 8, end); ++at)
      to[at] = from[at / line % TAPS * PITCH + at / line / TAPS * line + at % line];
  }
}

// [N, G, K, K, H, W] of gradient [N, C, H, W] and x [N, C, H, W]: a row of x times a row of the gradient is a product
// over the 16 channels, of which one kernel row of the taps is a band. block: 32 * K.
//
// Predicted bound on an H200: memory and instructions. With K = 7 a tap's gradient takes 3.3 bytes, 0.20 cycles; at
// 14x14 24 thread-instructions, 0.19, and at 7x7 30, 0.23.
template <typename T, int K, int TILES, int UNIT>
__global__ void __launch_bounds__(32 * K) planar_weight_gradient(const Planar p) {
  constexpr int ROW = TILES * CHUNK, AT_ONCE = 3 - TILES, PITCH = TapLines<TILES>::PITCH;
  const PlanarPlace place = planar_place(p);
  const int plane = p.height * p.width, line = p.rows * p.width;
  SHARED_MEMORY(T, image);
  T* gradient = image + (place.groups * (p.rows + K / 2) + K / 2) * ROW;
  T* taps = gradient + place.total * ROW;

  stage_reached<K, TILES, UNIT>(image, p.right, p, place);
  const T* from = of_group<const T>(p.left, place.group, CHANNELS * plane);
  stage_rows<32 * K, TILES, UNIT>(gradient, from, place.groups * CHANNELS, place.row, p.rows, p.per_row, p.rows,
                                  p.height, p.width);
  // A tap that would meet a column outside the image has no product.
#pragma unroll 1
  for (int i = threadIdx.x; i < K * K * PITCH / 8; i += 32 * K) store_vector<T, 8>(taps + 8 * i, zero_vector<T, 8>());
  __syncthreads();

  // Channels are summed over, so both factors are transposed on the way from [channel][column].
  const int lane = threadIdx.x % 32;
  const SharedAddress columns_address = shared_address(image + lane / 8 % 2 * CHUNK + (lane / 16 * 8 + lane % 8) * 8);
  const SharedAddress pixels_address = shared_address(gradient + lane / 16 * CHUNK + lane % 16 * 8);
  // Where each product of a lane goes: the second eight of its rows are more columns, or columns of the next row.
  const int first_tap = lane / 4 - 2 * (lane % 4) + K / 2;
  T* own = taps + first_tap * PITCH + 2 * (lane % 4);
  bool exists[TILES][4];
#pragma unroll
  for (int t = 0; t < TILES; ++t)
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      const int tap = first_tap + (TILES == 2 ? e / 2 * 8 : 0) - (8 * t + e % 2);
      exists[t][e] = static_cast<unsigned>(tap) < static_cast<unsigned>(K) && 8 * t + 2 * (lane % 4) + e % 2 < p.width;
    }
#pragma unroll 1
  for (int number = threadIdx.x / 32; number < place.total; number += K) {
    const int group = number * p.per_row >> 16;
    unsigned pixels[2 * TILES];
    load_matrices_transposed(pixels, pixels_address + number * ROW * 2);
    const SharedAddress columns = columns_address + (number + group * (K / 2)) * ROW * 2;
    T* to = own + number * p.width;
#pragma unroll
    for (int step = 0; step < K; step += AT_ONCE) {
      unsigned reached[4];
      load_matrices_transposed(reached, columns + step * ROW * 2);
#pragma unroll
      for (int t = 0; t < TILES; ++t) {
        const unsigned gradients[2] = {pixels[2 * t], pixels[2 * t + 1]};
        float products[4] = {};
        multiply_tiles<T>(products, reached, gradients);
#pragma unroll
        for (int below = 0; below < 2; ++below) {
          const float* pair = products + 2 * below;
          const unsigned both = two(from_float<T>(pair[0]), from_float<T>(pair[1]));
          const int further = step * K + (TILES == 2 ? 8 : K) * below - 8 * t;
          T* place = to + further * PITCH + 8 * t;
          if (step + (TILES == 2 ? 0 : below) >= K) continue;
          if (exists[t][2 * below]) place[0].bits = static_cast<unsigned short>(both);
          if (exists[t][2 * below + 1]) place[1 - PITCH].bits = static_cast<unsigned short>(both >> 16);
        }
      }
    }
  }
  __syncthreads();

  T* result = of_group<T>(p.result, place.group, K * K * plane) + place.row * p.width;
  if (p.rows == p.height) {
    write_taps<32 * K, K * K, PITCH, UNIT>(result, taps, place.group * (K * K * plane) % 8, place.groups, line,
                                           p.per_line);
  } else {
    const int existing = min(line, plane - place.row * p.width);
#pragma unroll 1
    for (int i = threadIdx.x; i < K * K * existing; i += 32 * K) {
      const int tap = i / existing, along = i - tap * existing;
      result[tap * plane + along] = taps[tap * PITCH + along];
    }
  }
}
