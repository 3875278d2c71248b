// Products of 16 pixels with the 16 columns that their windows reach, and the band of them that counts.
//
// A warp multiplies 16 pixels, 8 columns of two rows, with 16 pixels of one row: those pixels' 8 windows lie there. The
// lane of column `mine` has, for both of its rows, the products with columns i and 8 + i for two neighbouring i; at
// most one of the two is in its window, so that one number stands for both.
#pragma once
#include "tensor_tile.cuh"

template <typename T>
DEVICE unsigned pair_of(const float (&numbers)[2]) {
  return two(from_float<T>(numbers[0]), from_float<T>(numbers[1]));
}

// The bits of a float that 16 bits can hold as well.
template <typename T>
struct Leading;
template <>
struct Leading<float16> {
  static constexpr unsigned BITS = 0xffffe000u;
};
template <>
struct Leading<bfloat16> {
  static constexpr unsigned BITS = 0xffff0000u;
};

// Two numbers as sums of two: their leading bits, and what these leave, rounded.
template <typename T>
DEVICE void two_pairs(unsigned& pair, unsigned& rest, const float (&numbers)[2]) {
  const float leading[2] = {__uint_as_float(__float_as_uint(numbers[0]) & Leading<T>::BITS),
                            __uint_as_float(__float_as_uint(numbers[1]) & Leading<T>::BITS)};
  const float left[2] = {numbers[0] - leading[0], numbers[1] - leading[1]};
  pair = pair_of<T>(leading);
  rest = pair_of<T>(left);
}

// Pixels of a unit as left factors: fragments of 8 channels where a head has no more, else of 16.
template <typename T, int D>
struct Pixels {
  static constexpr int STEPS = D == 8 ? 1 : D / 16, WORDS = D == 8 ? 2 : 4;
  unsigned fragment[STEPS][WORDS];

  // Those outside the image are zero.
  __device__ __forceinline__ void load(const T* map, const Extents& x, const Unit& unit, int lane) {
    const int plane = x.height * x.width;
    const int pair = 2 * (lane % 4);
    const T* from = map + (own_channel<D>(x, pair) * plane + unit.row * x.width + unit.column);
    const bool upper = unit.has(x, 0), lower = unit.has(x, 1);
    const T zero = from_float<T>(0);
#pragma unroll
    for (int step = 0; step < STEPS; ++step)
#pragma unroll
      for (int i = 0; i < WORDS; i += 2) {
        const int block = 2 * step + i / 2;
        if (D > 8 && block == D / 16) from -= (D - x.channels) / 2 * plane;
        const bool has = has_channel<D>(x, 8 * block + pair), has_next = has_channel<D>(x, 8 * block + pair + 1);
        const T* const next = from + plane;
        fragment[step][i] = two(upper && has ? from[0] : zero, upper && has_next ? next[0] : zero);
        fragment[step][i + 1] = two(lower && has ? from[x.width] : zero, lower && has_next ? next[x.width] : zero);
        from += 8 * plane;
      }
  }

  // sums[n] += pixels times the right factor whose column block n of 8 begins 8 * n elements after `factor`, rows
  // `stride` elements apart.
  template <int N>
  __device__ __forceinline__ void multiply(float (&sums)[N][4], const T* factor, int stride, int lane) const {
#pragma unroll
    for (int step = 0; step < STEPS; ++step) {
      unsigned right[N][WORDS / 2];
      load_right(right, factor, stride, step, lane);
#pragma unroll
      for (int n = 0; n < N; ++n) multiply_tiles<T>(sums[n], fragment[step], right[n]);
    }
  }

  template <int N>
  DEVICE void load_right(unsigned (&right)[N][WORDS / 2], const T* factor, int stride, int step, int lane) {
    constexpr int ROWS = 4 * WORDS, SIZE = static_cast<int>(sizeof(T));
    unsigned words[N * WORDS / 2];
    const int channel = 16 * step + lane % ROWS, block = lane / ROWS % N;
    load_matrices_transposed(words, shared_address(factor) + (channel * stride + block * 8) * SIZE);
#pragma unroll
    for (int n = 0; n < N; ++n)
#pragma unroll
      for (int i = 0; i < WORDS / 2; ++i) right[n][i] = words[n * WORDS / 2 + i];
  }
};

// sums += each left factor [16][16] times a right factor [16][channels] that lies as [channel][8], its second eight
// rows `second` elements after the first: a row of a tile as it lies, nothing is transposed.
template <typename T, int D, int N>
DEVICE void multiply_rows(float (&sums)[D / 8][4], const unsigned (&left)[N][4], const T* factor, int stride,
                          int second, int lane) {
  const SharedAddress base = shared_address(factor);
  constexpr int BLOCKS = D == 8 ? 1 : 2;
#pragma unroll
  for (int first = 0; first < D; first += 8 * BLOCKS) {
    unsigned words[2 * BLOCKS];
    const int channel = first + lane / 16 % BLOCKS * 8 + lane % 8;
    load_matrices(words, base + (channel * stride + lane / 8 % 2 * second) * static_cast<int>(sizeof(T)));
#pragma unroll
    for (int block = 0; block < BLOCKS; ++block) {
      const unsigned right[2] = {words[2 * block], words[2 * block + 1]};
#pragma unroll
      for (int n = 0; n < N; ++n) multiply_tiles<T>(sums[first / 8 + block], left[n], right);
    }
  }
}

// Which of a lane's products count: for e = 0 and 1 those with columns i = 2 * (lane % 4) + e, or with 8 + i.
template <int K>
struct Band {
  bool first[2];      // which of the two: i
  bool inside[2];     // whether either is in the window
  int shift[2];       // which column of the window it is
  unsigned masks[2];  // of a pair of 16-bit values, those that belong to the columns i and those to 8 + i

  DEVICE Band of(int lane) {
    constexpr int MARGIN = 4;
    Band band;
    band.masks[0] = band.masks[1] = 0;
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      const int right = 2 * (lane % 4) + e - MARGIN - lane / 4 + K / 2;
      band.first[e] = right >= 0;
      band.shift[e] = right & 7;
      band.inside[e] = band.shift[e] < K;
      const unsigned mask = band.inside[e] ? 0xffffu << (16 * e) : 0;
      band.masks[0] |= band.first[e] ? mask : 0;
      band.masks[1] |= band.first[e] ? 0 : mask;
    }
    return band;
  }

  // Of the upper pixel, or for h = 1 of the lower.
  __device__ __forceinline__ float take(const float (&products)[2][4], int h, int e) const {
    return first[e] ? products[0][2 * h + e] : products[1][2 * h + e];
  }

  // A pair of 16-bit numbers in their places of a left factor [16][16]; what is outside the window becomes zero.
  __device__ __forceinline__ void split(unsigned (&left)[4], int h, unsigned pair) const {
    left[h] = pair & masks[0];
    left[2 + h] = pair & masks[1];
  }
};

// Eight numbers of four neighbouring lanes, two each: gives a lane those `by` places further, going round. All four
// lanes must ask for the same.
DEVICE void turn(float (&numbers)[2], int by, int lane) {
  const bool odd = by & 1;
  const int from = 2 * (lane % 4) + by;
  const float even = odd ? numbers[1] : numbers[0], other = odd ? numbers[0] : numbers[1];
  numbers[0] = __shfl_sync(0xffffffffu, even, lane / 4 * 4 + (from & 7) / 2);
  numbers[1] = __shfl_sync(0xffffffffu, other, lane / 4 * 4 + (from + 1 & 7) / 2);
}

// Adds up over four neighbouring lanes.
DEVICE float sum_of_four(float value) {
  value += __shfl_xor_sync(0xffffffffu, value, 1);
  return value + __shfl_xor_sync(0xffffffffu, value, 2);
}

// What positions add to the logits of a unit's queries, as all logits here in units of log 2.
template <int K>
struct PositionLogits {
  float row[4];        // of tap rows 2 * (lane % 4) + e % 2, of the upper query and then of the lower
  float column[2][2];  // of upper and lower query, as the band has columns; LEFT_OUT outside the window

  template <typename T, int D>
  DEVICE PositionLogits of(const Pixels<T, D>& queries, const T* embeddings, const Band<K>& band,
                           const Tile<D, K>& tile, const Unit& unit, const Extents& x, int lane) {
    PositionLogits logits;
    const int pair = 2 * (lane % 4);
    float rows[1][4] = {}, columns[1][4] = {};
    queries.multiply(rows, embeddings, 8, lane);
    queries.multiply(columns, embeddings + D * 8, 8, lane);
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      float both[2] = {columns[0][2 * h], columns[0][2 * h + 1]};
      turn(both, K / 2 - Tile<D, K>::MARGIN - lane / 4, lane);
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        const int key_row = unit.row + h + pair + e - K / 2;
        const int key_column = tile.left + unit.across - Tile<D, K>::MARGIN + pair + e + (band.first[e] ? 0 : 8);
        const bool below = x.masked && (key_row < 0 || key_row >= x.height);
        const bool beside = x.masked && (key_column < 0 || key_column >= x.width);
        logits.row[2 * h + e] = below ? LEFT_OUT : rows[0][2 * h + e] * LOG2_E;
        logits.column[h][e] = beside || !band.inside[e] ? LEFT_OUT : both[e] * LOG2_E;
      }
    }
    return logits;
  }

  // What the row of tap `a` adds for the upper query, or for h = 1 for the lower.
  __device__ __forceinline__ float of_row(int a, int h, int lane) const {
    return __shfl_sync(0xffffffffu, row[2 * h + a % 2], lane / 4 * 4 + a / 2);
  }
};

// Stores the channels of a unit's pixels, each times the scale of its row.
template <typename T, int D>
DEVICE void store_pixels(T* map, const float (&sums)[D / 8][4], const float (&scale)[2], const Extents& x,
                         const Unit& unit, int lane) {
  const int plane = x.height * x.width;
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    if (!unit.has(x, h)) continue;
    const int pair = 2 * (lane % 4);
    T* to = map + (own_channel<D>(x, pair) * plane + (unit.row + h) * x.width + unit.column);
#pragma unroll
    for (int block = 0; block < D / 8; ++block) {
      if (D > 8 && block == D / 16) to -= (D - x.channels) / 2 * plane;
#pragma unroll
      for (int e = 0; e < 2; ++e)
        if (has_channel<D>(x, 8 * block + pair + e)) to[e * plane] = from_float<T>(sums[block][2 * h + e] * scale[h]);
      to += 8 * plane;
    }
  }
}
