// Stacks of planes in shared memory: the rows of several images, one below the other, with zeros beside them.
#pragma once

#include "device.cuh"

// The part of every image's plane that a block holds.
struct Region {
  int first_row, rows, first_column, columns;  // columns: a whole number of 16-byte accesses
  int stride;                                  // values from one row to the next, in shared memory
};

// Copies the region of one plane of height x width by accesses of BYTES, zeros where it lies outside.
template <typename T, int BYTES>
DEVICE void copy_region(T* to, const Region& region, const T* plane, int height, int width) {
  constexpr int COUNT = BYTES / static_cast<int>(sizeof(T));
  const int vectors = region.columns / COUNT;
  // So many lanes share a row, a power of two: nothing divides, and only rows count in the inner loop.
  const int shift = min(5, 32 - __clz(vectors - 1)), lanes = 1 << shift;
  const int first = threadIdx.x >> shift, step = blockDim.x >> shift;
  for (int vector = threadIdx.x & (lanes - 1); vector < vectors; vector += lanes) {
    const int column = region.first_column + vector * COUNT;
    const bool in_row = static_cast<unsigned>(column) < static_cast<unsigned>(width);
    T* place = to + first * region.stride + vector * COUNT;
    for (int row = first; row < region.rows; row += step, place += step * region.stride) {
      const bool inside = in_row && static_cast<unsigned>(region.first_row + row) < static_cast<unsigned>(height);
      const T* from = plane + (inside ? (region.first_row + row) * width + column : 0);
      if constexpr (BYTES >= 4) {
        copy_async<BYTES>(place, from, inside);
      } else {
        Vector<T, 1> value = zero_vector<T, 1>();
        if (inside) value = load_vector<T, 1>(from);
        store_vector<T, 1>(place, value);
      }
    }
  }
}

// The same for `images` planes `image_size` values apart, of which the first `existing` are there, `access` bytes at a
// time: as many as every row's beginning is a multiple of. The caller waits for the copies.
template <typename T>
DEVICE void copy_regions(T* to, const Region& region, const T* plane, long long image_size, int images, int existing,
                         int height, int width, int access) {
  for (int image = 0; image < images; ++image) {
    const int there = image < existing ? height : 0;
    const T* from = image < existing ? plane + image * image_size : plane;
    T* place = to + image * (region.rows * region.stride);
    if (access == 16)
      copy_region<T, 16>(place, region, from, there, width);
    else if (access == 8)
      copy_region<T, 8>(place, region, from, there, width);
    else if (access == 4)
      copy_region<T, 4>(place, region, from, there, width);
    else if constexpr (sizeof(T) == 2)
      copy_region<T, 2>(place, region, from, there, width);
  }
}

// Fills with zeros; `count` values, a multiple of 16 bytes.
template <typename T>
DEVICE void clear(T* to, int count) {
  constexpr int COUNT = 16 / static_cast<int>(sizeof(T));
  for (int i = threadIdx.x * COUNT; i < count; i += blockDim.x * COUNT)
    store_vector<T, COUNT>(to + i, zero_vector<T, COUNT>());
}

// Which share of the work is a block's, counted so that neighbouring blocks read neighbouring memory.
struct Share {
  int column_tile, row_tile, channel, group;
};

DEVICE Share share_of(int index, int column_tiles, int row_tiles, int channels) {
  Share share;
  share.column_tile = index % column_tiles, index /= column_tiles;
  share.row_tile = index % row_tiles, index /= row_tiles;
  share.channel = index % channels, share.group = index / channels;
  return share;
}
