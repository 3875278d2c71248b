// Stacks of planes in shared memory: the rows of several images, one below the other, with zeros beside them.
#pragma once

#include "device.cuh"

// The part of every image's plane that a block holds.
struct Region {
  int first_row, rows, first_column, columns;  // columns: a whole number of 16-byte accesses
  int stride;                                  // values from one row to the next, in shared memory
};

// Fills with zeros; `count` values, a multiple of 16 bytes.
template <typename T>
DEVICE void clear(T* to, int count) {
  constexpr int COUNT = 16 / static_cast<int>(sizeof(T));
#pragma unroll 4
  for (int i = threadIdx.x * COUNT; i < count; i += blockDim.x * COUNT)
    store_vector<T, COUNT>(to + i, zero_vector<T, COUNT>());
}

// Copies, by accesses of BYTES, what lies inside the image of the region of every plane of a stack.
template <typename T, int BYTES>
DEVICE void copy_inside(T* to, const Region& region, const T* plane, long long image_size, int images, int height,
                        int width) {
  constexpr int COUNT = BYTES / static_cast<int>(sizeof(T));
  const int begin = max(0, region.first_column), end = min(width, region.first_column + region.columns);
  const int vectors = (end - begin) / COUNT, rows = min(region.rows, height - region.first_row);
  // So many lanes share a row, a power of two; and a step is so many images and rows: nothing divides on the way.
  const int shift = min(5, 32 - __clz(vectors - 1)), lanes = 1 << shift, step = blockDim.x >> shift;
  const int step_images = step / rows, step_rows = step - step_images * rows, first = threadIdx.x >> shift;
  to += begin - region.first_column;
  plane += region.first_row * width + begin;
  for (int vector = threadIdx.x & (lanes - 1); vector < vectors; vector += lanes) {
    int image = first / rows, row = first - image * rows;
    while (image < images) {
      const T* from = plane + image * image_size + (row * width + vector * COUNT);
      T* place = to + (image * region.rows + row) * region.stride + vector * COUNT;
      if constexpr (BYTES >= 4)
        copy_async<BYTES>(place, from);
      else
        store_vector<T, 1>(place, load_vector<T, 1>(from));
      row += step_rows;
      image += step_images;
      if (row >= rows) {
        row -= rows;
        ++image;
      }
    }
  }
}

// Copies the region of `images` planes, `image_size` values apart, to memory that holds zeros; `access` bytes at a
// time, as many as every row's beginning is a multiple of. The caller waits for the copies.
template <typename T>
DEVICE void copy_stack(T* to, const Region& region, const T* plane, long long image_size, int images, int height,
                       int width, int access) {
  if (access == 16)
    copy_inside<T, 16>(to, region, plane, image_size, images, height, width);
  else if (access == 8)
    copy_inside<T, 8>(to, region, plane, image_size, images, height, width);
  else if (access == 4)
    copy_inside<T, 4>(to, region, plane, image_size, images, height, width);
  else if constexpr (sizeof(T) == 2)
    copy_inside<T, 2>(to, region, plane, image_size, images, height, width);
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
