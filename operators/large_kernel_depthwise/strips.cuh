// Short filters in float32: a channel's planes in turns through shared memory, seven rows of four outputs to a thread.
#pragma once

#include "stacks.cuh"

constexpr int STRIP = 7;  // rows of a thread's outputs
constexpr int LEFT = 4;   // columns before a row in shared memory; those after it are the ones before the next row

// How a channel is cut: a unit is `rows` x `columns` outputs of each of `images` images, whole planes where there is
// one tile. A block takes every `splits`-th unit, and fills one buffer while it works on what another holds.
struct Units {
  int batch, channels, height, width;
  int images, rows, columns, row_tiles, column_tiles, units, splits;
  int stride, buffer;  // values from a row in shared memory to the next, and of a buffer
};

// A thread's outputs in a unit: their image, and their first row and column in the tile.
struct Place {
  int image, row, column;
};

DEVICE Place place_of(const Units& u) {
  const int quads = u.columns / 4, strips = (u.rows + STRIP - 1) / STRIP, strip = threadIdx.x / quads;
  const int image = strip / strips;
  return {image, (strip - image * strips) * STRIP, (static_cast<int>(threadIdx.x) - strip * quads) * 4};
}

// A unit: its first image, row and column.
struct Unit {
  int image, row, column;
};

DEVICE Unit unit_of(const Units& u, int unit) {
  if (u.row_tiles * u.column_tiles == 1) return {unit * u.images, 0, 0};
  const Share share = share_of(unit, u.column_tiles, u.row_tiles, 1);
  return {share.group * u.images, share.row_tile * u.rows, share.column_tile * u.columns};
}

// Begins to copy whole planes, each thread what it has the outputs of; the zeros around them are there already.
template <int COUNT>
DEVICE void copy_strip(float* to, const float* from, const Units& u, int rows, int columns) {
  const auto copy_row = [&] {
#pragma unroll
    for (int j = 0; j < 4; j += COUNT) copy_async<4 * COUNT>(to + j, from + j, j < columns);
    to += u.stride, from += u.width;
  };
  if (rows >= STRIP) {
#pragma unroll
    for (int i = 0; i < STRIP; ++i) copy_row();
  } else {
#pragma unroll 1
    for (int i = 0; i < rows; ++i) copy_row();
  }
}

// Begins to copy a tile with what its outputs see around it, zeros where that is outside the image.
template <int PADDING, int COUNT>
DEVICE void copy_tile(float* to, const float* plane, const Units& u, int top, int left) {
  const int pieces = u.stride / COUNT, held = u.rows + 2 * PADDING;
  const int step_rows = blockDim.x / pieces, step = blockDim.x - step_rows * pieces;
  int row = threadIdx.x / pieces, piece = threadIdx.x - row * pieces;
  while (row < held) {
    const int y = top - PADDING + row, x = left - LEFT + piece * COUNT;
    const bool inside = static_cast<unsigned>(y) < static_cast<unsigned>(u.height) &&
                        static_cast<unsigned>(x) < static_cast<unsigned>(u.width);
    copy_async<4 * COUNT>(to + row * u.stride + piece * COUNT, inside ? plane + (y * u.width + x) : plane, inside);
    row += step_rows, piece += step;
    if (piece >= pieces) piece -= pieces, ++row;
  }
}

// Begins to copy what a unit's outputs see, COUNT values at a time; `planes` is the channel in the first image.
template <int PADDING, int COUNT>
DEVICE void copy_unit(float* to, const float* planes, const Units& u, const Place& place, const Unit& unit) {
  const long long image_size = static_cast<long long>(u.channels) * (u.height * u.width);
  if (u.row_tiles * u.column_tiles > 1) {
    copy_tile<PADDING, COUNT>(to, planes + unit.image * image_size, u, unit.row, unit.column);
  } else if (place.image < u.images && unit.image + place.image < u.batch) {
    copy_strip<COUNT>(to + (PADDING + place.image * (u.rows + PADDING) + place.row) * u.stride + LEFT + place.column,
                      planes + (unit.image + place.image) * image_size + (place.row * u.width + place.column), u,
                      u.height - place.row, u.width - place.column);
  }
  commit_copies();
}
