// What the banded kernels are made of: rows of an image and of taps in shared memory, and the band that a pixel's taps
// form when a row of pixels is multiplied by a matrix.
//
// Everything in shared memory has a pitch of an odd number of 16-byte vectors. Eight rows then start in different
// banks, so that ldmatrix, and the 16-bit loads and stores that walk a band diagonally, touch no bank twice (enumerated
// for kernel sizes 3 to 7, either stride, every width used here).
#pragma once
#include "tile.cuh"

constexpr int CHANNELS = 16;  // of a group; the rows of every tensor-core tile of an image

DEVICE constexpr int pitch_of(int values) { return ((values + 7) / 8 | 1) * 8; }

// Eight values of a row from `column - SHIFT` on, SHIFT at most 4, zeros outside 0..width - 1. Read in units of UNIT,
// of which both column and width are multiples, so that a unit is inside or outside as a whole.
template <int SHIFT, int UNIT, typename T>
DEVICE Vector<T, 8> load_shifted(const T* row, int column, int width) {
  Vector<T, 8> vector = zero_vector<T, 8>();
  if constexpr (UNIT > 1) {
    constexpr int BEFORE = UNIT == 8 ? 8 : 4;
    unsigned words[(BEFORE + 8) / 2] = {};
#pragma unroll
    for (int at = -BEFORE; at < 8; at += UNIT) {
      const bool needed = at + UNIT > -SHIFT && at < 8 - SHIFT;
      if (!needed || column + at < 0 || column + at >= width) continue;
      const Vector<T, UNIT> unit = load_vector<T, UNIT>(row + column + at);
#pragma unroll
      for (int i = 0; i < UNIT / 2; ++i) words[(BEFORE + at) / 2 + i] = unit.word[i];
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int first = BEFORE - SHIFT + 2 * i;
      vector.word[i] = first % 2 ? __byte_perm(words[first / 2], words[first / 2 + 1], 0x5432) : words[first / 2];
    }
  } else {
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const int at = column - SHIFT + i;
      const unsigned bits = at >= 0 && at < width ? row[at].bits : 0;
      vector.word[i / 2] |= bits << (i % 2 * 16);
    }
  }
  return vector;
}

// The block copies rows of 16 channels to [row][channel][PITCH]: `to`'s column m is the image's `column - SHIFT + m`.
template <int VECTORS, int PITCH, int SHIFT, int UNIT, typename T>
DEVICE void stage_image(T* to, const T* from, int rows, int row, int column, int height, int width) {
#pragma unroll 2
  for (int i = threadIdx.x; i < rows * CHANNELS * VECTORS; i += blockDim.x) {
    const int line = i / VECTORS, v = i - line * VECTORS, channel = line % CHANNELS, from_row = row + line / CHANNELS;
    Vector<T, 8> vector = zero_vector<T, 8>();
    if (from_row >= 0 && from_row < height)
      vector = load_shifted<SHIFT, UNIT>(from + (channel * height + from_row) * width, column + 8 * v, width);
    store_vector<T, 8>(to + line * PITCH + 8 * v, vector);
  }
}

// A warp's copies of one row of each of PLANES planes to [plane][PITCH], COLUMNS columns from `column` on in units of
// VECTOR; zeros outside 0..width - 1. What one lane copies is worked out once, for all the rows that are to follow.
template <typename T, int PLANES, int COLUMNS, int VECTOR, int PITCH>
struct RowCopies {
  static constexpr int UNITS = COLUMNS / VECTOR, COUNT = ceil_div(PLANES * UNITS, 32);
  const T* row;
  int from[COUNT], to[COUNT];
  bool mine[COUNT], inside[COUNT];

  __device__ __forceinline__ RowCopies(const T* row, int plane, int column, int width) : row(row) {
#pragma unroll
    for (int c = 0; c < COUNT; ++c) {
      const int i = c * 32 + threadIdx.x % 32, k = i / UNITS, along = VECTOR * (i - k * UNITS), at = column + along;
      mine[c] = i < PLANES * UNITS;
      inside[c] = at >= 0 && at < width;
      from[c] = k * plane + at;
      to[c] = k * PITCH + along;
    }
  }

  // Copies the row `further` values on, zeros where it does not exist. It has arrived when the warp has waited for it.
  __device__ __forceinline__ void start(T* rows, int further, bool exists) const {
#pragma unroll
    for (int c = 0; c < COUNT; ++c) {
      if (!mine[c]) continue;
      if constexpr (VECTOR > 1)
        copy_async<VECTOR * 2>(rows + to[c], row + (from[c] + further), exists && inside[c]);
      else
        rows[to[c]] = exists && inside[c] ? row[from[c] + further] : T{};
    }
  }
};

// The fragment of CHUNKS * 8 rows k and 8 columns n of a matrix whose element (k, n) is a tap of some pixel, or zero.
template <int CHUNKS>
struct Band {
  unsigned selector[CHUNKS];
  int offset[CHUNKS][2];

  // Element (k, n) is tap along_k * k + along_n * n + first, where that is one of K, of pixel n, or of pixel k.
  template <int K, int PITCH, bool OF_PIXEL_K>
  __device__ __forceinline__ void set(int along_k, int along_n, int first) {
    const int lane = threadIdx.x % 32, n = lane / 4;
#pragma unroll
    for (int j = 0; j < CHUNKS; ++j) {
      bool in_band[2];
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        const int k = 8 * j + 2 * (lane % 4) + e, tap = along_k * k + along_n * n + first;
        in_band[e] = tap >= 0 && tap < K;
        offset[j][e] = (in_band[e] ? tap : 0) * PITCH + (OF_PIXEL_K ? k : n);
      }
      // Bytes 2 and 3 of a 16-bit value loaded into a register are zero: the selector of what is outside the band.
      selector[j] = (in_band[0] ? 0x10u : 0x32u) | (in_band[1] ? 0x5400u : 0x7600u);
    }
  }

  template <typename T>
  __device__ __forceinline__ unsigned load(const T* taps, int j) const {
    return __byte_perm(taps[offset[j][0]].bits, taps[offset[j][1]].bits, selector[j]);
  }
};

// Adds image[16 x 8 * COUNT columns] * band; `image` holds the columns in chunks of eight.
template <typename T, int COUNT, int CHUNKS>
DEVICE void multiply_band(float (&sums)[4], const unsigned (*image)[2], const Band<CHUNKS>& band, const T* taps) {
  static_assert(COUNT <= CHUNKS, "a band has all the chunks it is asked for");
#pragma unroll
  for (int j = 0; j < COUNT; j += 2) {
    if (j + 1 < COUNT) {
      const unsigned a[4] = {image[j][0], image[j][1], image[j + 1][0], image[j + 1][1]};
      const unsigned b[2] = {band.load(taps, j), band.load(taps, j + 1)};
      multiply_tiles<T>(sums, a, b);
    } else {
      const unsigned a[2] = {image[j][0], image[j][1]}, b[1] = {band.load(taps, j)};
      multiply_tiles<T>(sums, a, b);
    }
  }
}

// Loads chunks of eight columns of the 16 channels of a row in shared memory, as left operands of multiply_tiles.
template <int CHUNKS, int PITCH, typename T>
DEVICE void load_chunks(unsigned (&chunks)[CHUNKS][2], const T* row) {
  const int lane = threadIdx.x % 32;
  const SharedAddress address = shared_address(row + lane % 16 * PITCH + lane / 16 * 8);
#pragma unroll
  for (int j = 0; j + 1 < CHUNKS; j += 2) {
    unsigned two[4];
    load_matrices(two, address + j * 16);
    chunks[j][0] = two[0], chunks[j][1] = two[1], chunks[j + 1][0] = two[2], chunks[j + 1][1] = two[3];
  }
  if constexpr (CHUNKS % 2) load_matrices(chunks[CHUNKS - 1], address + (CHUNKS - 1) * 16);
}

// A warp stores a row of TILES * 8 columns of 16 channels, of which `columns` exist; pairs at once where PAIRS says
// that rows are whole pairs.
template <int TILES, bool PAIRS, typename T>
DEVICE void store_row(T* row, int plane, int columns, const float (&sums)[TILES][4]) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int t = 0; t < TILES; ++t)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int channel = lane / 4 + 8 * half, column = 8 * t + 2 * (lane % 4);
      T* to = row + channel * plane + column;
      if constexpr (PAIRS) {
        const float two[2] = {sums[t][2 * half], sums[t][2 * half + 1]};
        if (column < columns) store_floats<T, 2>(to, two);
      } else {
        if (column < columns) to[0] = from_float<T>(sums[t][2 * half]);
        if (column + 1 < columns) to[1] = from_float<T>(sums[t][2 * half + 1]);
      }
    }
}
