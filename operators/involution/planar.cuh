// What the planar kernels are made of: rows of small maps in shared memory, and matrices that have taps along a band.
//
// Rows of a small map are neither whole vectors nor aligned: lanes take units of one or two pixels, of several rows at
// once. How far apart rows and matrices lie was chosen so that a warp that puts taps in their places touches no bank
// twice, and ldmatrix none (enumerated for kernel sizes 3 to 7 and every width).
#pragma once
#include "tile.cuh"

constexpr int CHANNELS = 16;             // of a group; the rows of every tensor-core tile of an image
constexpr int CHUNK = CHANNELS * 8 + 8;  // values from one [channel][8 columns] to the next
constexpr int MOST_ROWS = 14;            // of a block
constexpr int MARGIN = 32;               // values before and after the matrices that taps outside the image fall into

struct Planar {
  const void* left;   // x; of the gradients, gradient
  const void* right;  // weight; of the gradient of weight, x
  void* result;
  int height, width;
  int groups, together;  // of all images, and of a block
  int rows;              // of a plane that a block takes: all, or a strip of them
  int loaded_rows;       // of the other image: all, or as many as rows + K - 1
  int per_row, per_loaded_row;  // 65536 / rows and / loaded_rows, rounded up: what numbers are divided by
  unsigned per_line;  // 2^21 / (rows * width), rounded up
};

// What a block works on: rows of one or more groups, from `row` on, numbered through the groups. Of a plane's last
// strip some may not exist.
struct PlanarPlace {
  unsigned group;
  int groups, row, total;
};

// grid: groups / together, strips of rows.
DEVICE PlanarPlace planar_place(const Planar& p) {
  const int group = blockIdx.x * p.together, groups = min(p.together, p.groups - group);
  return {static_cast<unsigned>(group), groups, static_cast<int>(blockIdx.y) * p.rows, groups * p.rows};
}

// Where a group's `size` values begin. In bytes, so that an offset from there is added by one instruction.
template <typename T>
DEVICE T* of_group(const void* tensor, unsigned group, unsigned size) {
  const unsigned long long bytes = static_cast<unsigned long long>(group) * (size * static_cast<unsigned>(sizeof(T)));
  return reinterpret_cast<T*>(static_cast<char*>(const_cast<void*>(tensor)) + bytes);
}

// Eight values of units of one or two.
template <typename T, int COUNT, typename Unit>
DEVICE Vector<T, 8> joined(const Unit (&units)[COUNT]) {
  Vector<T, 8> eight;
#pragma unroll
  for (int w = 0; w < 4; ++w)
    if constexpr (COUNT == 4)
      eight.word[w] = units[w].word[0];
    else
      eight.word[w] = units[2 * w].word[0] | units[2 * w + 1].word[0] << 16;
  return eight;
}

// The block copies `count` rows of each of so many channels, those from `row` on, to [group][`pitch` rows][TILES]
// [channel][8 columns]; zeros beyond the image. A thread loads eight columns, whose addresses then need no instructions,
// and its neighbours what lies beside in memory. `reciprocal` is 65536 / count, rounded up.
template <int THREADS, int TILES, int UNIT, typename T>
DEVICE void stage_rows(T* to, const T* from, int channels, int row, int count, int reciprocal, int pitch, int height,
                       int width) {
  const unsigned items = channels * TILES * count, plane = height * width;
#pragma unroll 1
  for (unsigned first = threadIdx.x; first < items; first += TILES * THREADS) {
    Vector<T, UNIT> units[TILES][8 / UNIT];
    unsigned place[TILES];
#pragma unroll
    for (int j = 0; j < TILES; ++j) {
      const unsigned item = first + j * THREADS, line = item / TILES, tile = item % TILES;
      const unsigned channel = line * reciprocal >> 16, below = line - channel * count;
      const int columns = item < items && row + below < height ? width - static_cast<int>(8 * tile) : 0;
      const T* source = from + static_cast<int>(channel * plane + (row + below) * width + 8 * tile);
      place[j] = ((channel / CHANNELS * pitch + below) * TILES + tile) * CHUNK + channel % CHANNELS * 8;
#pragma unroll
      for (int u = 0; u < 8 / UNIT; ++u) {
        units[j][u] = zero_vector<T, UNIT>();
        if (UNIT * u < columns) units[j][u] = load_vector<T, UNIT>(source + UNIT * u);
      }
    }
#pragma unroll
    for (int j = 0; j < TILES; ++j) {
      if (first + j * THREADS >= items) break;
      store_vector<T, 8>(to + place[j], joined<T>(units[j]));
    }
  }
}

// The block copies all rows that taps of its own reach, K / 2 more on either side. What is outside the image is zero:
// as many rows before a group as after it, which the next one shares.
template <int K, int TILES, int UNIT, typename T>
DEVICE void stage_reached(T* to, const void* tensor, const Planar& p, const PlanarPlace& place) {
  constexpr int PAD = K / 2, ROW = TILES * CHUNK, GAP = PAD * ROW / 8;
  const int pitch = p.rows + PAD;
  const bool whole = p.rows == p.height;
  const T* from = of_group<const T>(tensor, place.group, CHANNELS * p.height * p.width);
  stage_rows<32 * K, TILES, UNIT>(to + (whole ? PAD * ROW : 0), from, place.groups * CHANNELS,
                                  whole ? 0 : place.row - PAD, p.loaded_rows, p.per_loaded_row, pitch, p.height,
                                  p.width);
  if (whole)
#pragma unroll 1
    for (int i = threadIdx.x; i < (place.groups + 1) * GAP; i += 32 * K)
      store_vector<T, 8>(to + i / GAP * (pitch * ROW) + i % GAP * 8, zero_vector<T, 8>());
}

// Taps as matrices: row j and column n of matrix `step` of a row have the tap through which column j of the row
// `step - K / 2` below meets pixel n, where there is one. Such matrices are 8 pixels wide; those of the second 8 lie
// `half` values after those of the first.
//
// A tap that would meet a column outside falls into the matrix before or after, where no tap meets anything, and
// beside the taps of an odd number of pixels lies one too many: `Band` lets nothing through from there.
template <int K, int TILES, int UNIT>
struct Matrices {
  static constexpr int COLUMNS = TILES == 1 ? 8 : 14, SIZE = COLUMNS * 8;
  static constexpr int PITCH = K * SIZE + 8 * (UNIT == 2 ? 1 : TILES == 1 ? 2 : 0);  // from a row's to the next row's
  static_assert(K < COLUMNS, "taps that meet nothing stay clear of those that do");

  DEVICE int half(int rows) { return ceil_div(rows * PITCH, 64) * 64 + 32; }
  DEVICE int size(int rows) { return 2 * MARGIN + (TILES - 1) * half(rows) + rows * PITCH; }
};

// Taps in units of UNIT pixels on their way to their places. Each of K warps takes one kernel row, and its lanes take
// several rows of pixels at once. Backward, the pixels are those in the rows reached, and the last kernel row comes
// first. Where there are none, beyond the image, others stand in for them, of a row that is reached as well: they meet
// zeros.
template <typename T, int K, int TILES, int UNIT, bool BACK>
struct TapsOfRows {
  typedef Matrices<K, TILES, UNIT> To;
  static constexpr int LANES = 8 * TILES / UNIT, ROWS = 32 / LANES, SETS = ceil_div(MOST_ROWS, ROWS);
  Vector<T, UNIT> taps[SETS][K];
  bool exists[SETS];

  __device__ __forceinline__ void load(const Planar& p, const PlanarPlace& place) {
    const unsigned plane = p.height * p.width;
    const int step = threadIdx.x / 32, column = threadIdx.x % LANES * UNIT, first = threadIdx.x % 32 / LANES;
    const T* weight = of_group<const T>(p.right, place.group, K * K * plane);
    // What does not exist goes nowhere, and one load of what does is cheaper than none.
    const unsigned own = (BACK ? K - 1 - step : step) * K * plane + min(column, p.width - UNIT);
#pragma unroll
    for (int i = 0; i < SETS; ++i) {
      exists[i] = first + i * ROWS < place.total && column < p.width;
      const int number = min(first + i * ROWS, place.total - 1), group = number * p.per_row >> 16;
      const int row = place.row + number - group * p.rows + (BACK ? step - K / 2 : 0);
      const unsigned offset = own + max(min(row, p.height - 1), 0) * p.width + group * (K * K * plane);
      const T* from = weight + offset;
#pragma unroll
      for (int b = 0; b < K; ++b, from += plane) taps[i][b] = load_vector<T, UNIT>(from);
    }
  }

  __device__ __forceinline__ void put(T* matrices, int half) const {
    const int column = threadIdx.x % LANES * UNIT, step = threadIdx.x / 32, number = threadIdx.x % 32 / LANES;
    T* own = matrices + column / 8 * half + number * To::PITCH + step * To::SIZE + (column - K / 2) * 8 + column % 8;
#pragma unroll
    for (int i = 0; i < SETS; ++i) {
      if (!exists[i]) continue;
      // Column j meets a pixel through one tap, and the next pixel through the tap before that.
#pragma unroll
      for (int j = 0; j < K + UNIT - 1; ++j) {
        Vector<T, UNIT> both = taps[i][j < K ? j : K - 1];
        if (j > 0 && j < K && UNIT == 2) both.word[0] = __byte_perm(both.word[0], taps[i][j - 1].word[0], 0x7610);
        store_vector<T, UNIT>(own + i * ROWS * To::PITCH + j * 8, both);
      }
    }
  }
};
