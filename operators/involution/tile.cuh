// How the planes of a group are cut into tiles, one for each block.
#pragma once
#include "device.cuh"

DEVICE constexpr int ceil_div(int extent, int step) { return (extent + step - 1) / step; }

// Where a block works: tile (first row, first column) of one group of one image.
struct TilePlace {
  long long group;
  int row, column;
};

DEVICE TilePlace tile_place(int tiles_down, int tiles_across, int rows, int columns) {
  const unsigned across = blockIdx.x % tiles_across, tile = blockIdx.x / tiles_across;
  const unsigned down = tile % tiles_down;
  return {tile / tiles_down, static_cast<int>(down) * rows, static_cast<int>(across) * columns};
}
