// What a block of the tensor-core kernels has of two feature maps: a tile and the margin that its windows reach.
#pragma once
#include "window.cuh"

constexpr int THREADS = 128, WARPS = THREADS / 32;
constexpr float LOG_2 = 0.6931471805599453f;

// D channels, of which a head may have fewer: its halves, which meet row and column embeddings, begin where those of D
// channels do, and what it does not have is zero.
template <int D>
DEVICE bool has_channel(const Extents& x, int channel) {
  return channel % (D / 2) < x.channels / 2;
}

// Which of a head's channels it is.
template <int D>
DEVICE int own_channel(const Extents& x, int channel) {
  return channel < D / 2 ? channel : channel - (D - x.channels) / 2;
}

// Both maps in shared memory, one after the other, in elements: [channel][row][column].
template <int D, int K>
struct Tile {
  static constexpr int HEIGHT = 8, WIDTH = D <= 16 ? 32 : D == 32 ? 16 : 8;
  static constexpr int MARGIN = 4;  // columns, so that 8 pixels are 16 aligned bytes; rows have K / 2
  static constexpr int ROWS = HEIGHT + K - 1, COLUMNS = WIDTH + 2 * MARGIN;
  // An odd number of 16 bytes from channel to channel: the 8 rows of a matrix then lie in different banks.
  static constexpr int CHANNEL = ROWS * COLUMNS / 8 % 2 ? ROWS * COLUMNS : ROWS * COLUMNS + 8;
  static constexpr int MAP = D * CHANNEL;

  int map, top, left;  // which map, and where the tile without its margin begins

  DEVICE Tile at(int tiles_across, int tiles) {
    const int map = blockIdx.x / tiles, tile = blockIdx.x - map * tiles;
    return {map, tile / tiles_across * HEIGHT, tile % tiles_across * WIDTH};
  }
  // Units that have a pixel in the image, side by side and in all.
  __device__ __forceinline__ int units_across(const Extents& x) const { return min(WIDTH, x.width - left + 7) / 8; }
  __device__ __forceinline__ int units(const Extents& x) const {
    return units_across(x) * (min(HEIGHT, x.height - top + 1) / 2);
  }
};

// 16 pixels, what a warp takes at a time: 8 columns of two rows. A lane has to do with one column of them.
struct Unit {
  int across;         // from the tile's first column to the unit's
  int row, column;    // the upper of the lane's pixels
  int corner;         // in the tile, the first of the 16 columns that its windows reach, in the first of their rows

  template <int D, int K>
  DEVICE Unit at(const Tile<D, K>& tile, const Extents& x, int number, int lane) {
    typedef Tile<D, K> Shape;
    const int in_row = tile.units_across(x), line = number / in_row, below = 2 * line;
    const int across = 8 * (number - line * in_row);
    return {across, tile.top + below, tile.left + across + lane / 4, below * Shape::COLUMNS + across};
  }
  __device__ __forceinline__ bool has(const Extents& x, int h) const { return row + h < x.height && column < x.width; }
};

// Copies what the image has of a tile, VEC values at a time, of which each row has a whole number; heads of D channels.
template <int VEC, typename T, int D, int K>
DEVICE void copy_inside(T* memory, const T* one, const T* other, const Tile<D, K>& tile, const Extents& x) {
  typedef Tile<D, K> Shape;
  const int above = tile.top - K / 2, before = tile.left - Shape::MARGIN, plane = x.height * x.width;
  const int first_row = max(above, 0), first_column = max(before, 0);
  const int rows = min(above + Shape::ROWS, x.height) - first_row;
  const int across = (min(before + Shape::COLUMNS, x.width) - first_column) / VEC;
  // A thread copies one place of every channel; of every second, fourth and so on where a tile has few places.
  constexpr int BATCH = 4;
  const int places = rows * across;
  int groups = 1;
  while (2 * groups * places <= THREADS && 2 * groups * BATCH <= D) groups *= 2;
  const int step = groups * plane, step_to = groups * Shape::CHANNEL;
  for (int i = threadIdx.x; i < places * groups; i += THREADS) {
    const int group = i / places, place = i - group * places, line = place / across;
    const int row = first_row + line, column = first_column + (place - line * across) * VEC;
    const int first = group * plane + row * x.width + column;
    const T *from_one = one + first, *from_other = other + first;
    T* to = memory + group * Shape::CHANNEL + (row - above) * Shape::COLUMNS + column - before;
#pragma unroll 1
    for (int channel = group; channel < D; channel += BATCH * groups) {
      if constexpr (VEC == 1) {
        T some[2][BATCH];
#pragma unroll
        for (int e = 0; e < BATCH; ++e) {
          some[0][e] = from_one[e * step];
          some[1][e] = from_other[e * step];
        }
#pragma unroll
        for (int e = 0; e < BATCH; ++e) {
          to[e * step_to] = some[0][e];
          to[e * step_to + Shape::MAP] = some[1][e];
        }
      } else {
        constexpr int BYTES = VEC * static_cast<int>(sizeof(T));
#pragma unroll
        for (int e = 0; e < BATCH; ++e) {
          copy_async<BYTES>(to + e * step_to, from_one + e * step);
          copy_async<BYTES>(to + e * step_to + Shape::MAP, from_other + e * step);
        }
      }
      from_one += BATCH * step;
      from_other += BATCH * step;
      to += BATCH * step_to;
    }
  }
}

// The same for heads of fewer channels.
template <typename T, int D, int K>
DEVICE void copy_narrow(T* memory, const T* one, const T* other, const Tile<D, K>& tile, const Extents& x) {
  typedef Tile<D, K> Shape;
  for (int i = threadIdx.x; i < D * Shape::ROWS * Shape::COLUMNS; i += THREADS) {
    const int line = i / Shape::COLUMNS, channel = line / Shape::ROWS;
    const int row = tile.top - K / 2 + line - channel * Shape::ROWS;
    const int column = tile.left - Shape::MARGIN + i - line * Shape::COLUMNS;
    const bool inside = row >= 0 && row < x.height && column >= 0 && column < x.width;
    if (!inside || !has_channel<D>(x, channel)) continue;
    const int from = (own_channel<D>(x, channel) * x.height + row) * x.width + column;
    const int to = i + channel * (Shape::CHANNEL - Shape::ROWS * Shape::COLUMNS);
    memory[to] = one[from];
    memory[to + Shape::MAP] = other[from];
  }
}

// Fills a tile with two maps, and with zeros outside the image. Its copies are under way when this returns.
template <typename T, int D, int K>
DEVICE void fill_tile(T* memory, const T* one, const T* other, const Tile<D, K>& tile, const Extents& x) {
  typedef Tile<D, K> Shape;
  const bool whole = x.channels == D && tile.top >= K / 2 && tile.top + Shape::HEIGHT + K / 2 <= x.height &&
                     tile.left >= Shape::MARGIN && tile.left + Shape::WIDTH + Shape::MARGIN <= x.width;
  if (!whole) {
#pragma unroll 4
    for (int i = 8 * threadIdx.x; i < 2 * Shape::MAP; i += 8 * THREADS)
      store_vector<T, 8>(memory + i, zero_vector<T, 8>());
    __syncthreads();
  }
  // A copy has 4 bytes at least, or is none.
  if (x.channels != D)
    copy_narrow(memory, one, other, tile, x);
  else if (x.width % 4 == 0)
    copy_inside<4>(memory, one, other, tile, x);
  else if (x.width % 2 == 0)
    copy_inside<2>(memory, one, other, tile, x);
  else
    copy_inside<1>(memory, one, other, tile, x);
  commit_copies();
}

// Embeddings as right factors [D][8]: of rows, zero for the second half of the channels; then of columns.
template <int D, int K, typename T>
DEVICE void fill_embeddings(T* memory, const Embeddings<T>& rel, const Extents& x) {
  for (int i = threadIdx.x; i < 2 * D * 8; i += THREADS) {
    const int shift = i % 8, channel = i / 8 % D;
    const bool by_column = i >= 8 * D, has = shift < K && by_column == (channel >= D / 2) && has_channel<D>(x, channel);
    memory[i] = from_float<T>(has ? rel.at(own_channel<D>(x, channel), shift, shift) : 0.0f);
  }
}
