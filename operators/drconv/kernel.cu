// DRConv as matrix products. A tile's columns are pixels of one region, so a block reads the filters of that region
// alone and multiplies nothing in vain; windows are gathered while loading and never written out.
#include "regions.cuh"
#include "windows.cuh"

struct Geometry {
  View view;  // of the outputs into the input, but for the input's gradient
  int groups, channels, outputs, regions;  // channels and outputs of a group
};

// The block's place: consecutive blocks have the same pixels, which cost more to load than filters.
struct Tile {
  int row, column, group, rest;

  DEVICE Tile at(int block, int rows, int columns, int groups) {
    const int columns_at = block / rows, groups_at = columns_at / columns, rest = groups_at / groups;
    return {block - columns_at * rows, columns_at - groups_at * columns, groups_at - rest * groups, rest};
  }
};

// Windows restricted to listed positions of one image: the tile's lines, or k.
template <class Operand>
struct Listed : Operand {
  const int* list;
  int count;

  MEMBER typename Operand::Line line(int i) const {
    if constexpr (Operand::ALONG_K)
      return Operand::line(i);
    else
      return Operand::line(position(i));
  }
  MEMBER typename Operand::Depth depth(int k) const {
    if constexpr (Operand::ALONG_K)
      return Operand::depth(position(k));
    else
      return Operand::depth(k);
  }

 private:
  // Beyond the list, a position that is beyond the image.
  MEMBER int position(int i) const { return i < count ? list[i] : Operand::positions; }
};

// Listed pixels of one image's planes. ALONG_K: pixels are k and lines are channels; else the other way round.
template <typename T, bool ALONG_K_>
struct ListedPixels {
  static constexpr bool ALONG_K = ALONG_K_, COPIED = false;
  static constexpr int VECTOR = 1;
  typedef int Line;   // offset, -1 beyond the channels or the list
  typedef int Depth;  // the same

  const T* planes;
  int plane, channels;  // pixels of a plane, and how many there are
  const int* list;
  int count;

  MEMBER Line line(int i) const { return ALONG_K ? channel(i) : pixel(i); }
  MEMBER Depth depth(int k) const { return ALONG_K ? pixel(k) : channel(k); }
  MEMBER Vector<T, 1> load(Line line, Depth depth) const {
    return (line | depth) >= 0 ? load_vector<T, 1>(planes + (line + depth)) : zero_vector<T, 1>();
  }

 private:
  MEMBER int channel(int number) const { return number < channels ? number * plane : -1; }
  MEMBER int pixel(int number) const { return number < count ? list[number] : -1; }
};

// The filters of one region and one image.
template <typename T>
DEVICE const T* filters_of(const void* filters, const Geometry& at, int image, int region, int group) {
  const long long size = static_cast<long long>(at.outputs) * at.channels * at.view.taps.by;
  return static_cast<const T*>(filters) + ((static_cast<long long>(image) * at.regions + region) * at.groups + group) * size;
}

// A group's planes of one image.
template <typename T>
DEVICE const T* planes_of(const void* images, int image, int groups, int group, int channels, int plane) {
  return static_cast<const T*>(images) + (static_cast<long long>(image) * groups + group) * channels * plane;
}

// Where some columns of a tile, which are listed pixels, lie in a plane; -1 beyond the list.
template <int RUN>
struct Places {
  int at[RUN];
};

template <int RUN>
DEVICE Places<RUN> places_of(const Share& share, int column) {
  Places<RUN> places;
#pragma unroll
  for (int e = 0; e < RUN; ++e) places.at[e] = column + e < share.count ? share.pixels[column + e] : -1;
  return places;
}

// Stores a tile whose columns are a share's pixels: `rows` planes of `pixels` each.
template <typename T, class Block>
DEVICE void store_listed(const Block& product, T* planes, const Share& share, int rows, int pixels) {
  product.each([&](int column) { return places_of<Block::RUN>(share, column); },
               [&](int i, const Places<Block::RUN>& places, const float(&sums)[Block::RUN]) {
                 if (i >= rows) return;
#pragma unroll
                 for (int e = 0; e < Block::RUN; ++e)
                   if (places.at[e] >= 0) planes[i * pixels + places.at[e]] = from_float<T>(sums[e]);
               });
}

// Blocks that a multiprocessor should hold: what narrow tiles wait for is memory, and the more of them wait the better.
template <int M, int N, int FILTERS>
constexpr int RESIDENT = N < 64 ? 384 / M : M == 64 && FILTERS > 1 ? 3 : 2;

struct Forward {
  const void* x;        // [N, G * channels, H, W]
  const void* filters;  // [N, regions, G * outputs, channels, k, k]
  const int* places;
  void* y;              // [N, G * outputs, Ho, Wo]
  Geometry at;
  int shares;  // of an image, at most
};

// Gathers windows by the quicker way where they have at most 15 x 15 taps.
template <typename T, int POSITIONS>
using Gathered = typename Choice<(POSITIONS == 0), SmallWindows<T>, Windows<T, false>>::Type;

// Rows are outputs, columns pixels of one region, k taps. FILTERS values of a filter are loaded at once. POSITIONS is 1
// where the only tap sees just its own position; else windows are gathered: 0 where they are small, -1 any.
template <typename T, int M, int N, int FILTERS, int POSITIONS>
__global__ void __launch_bounds__(2 * M, RESIDENT<M, N, FILTERS>) forward(const Forward p) {
  typedef Product<T, M, N> Block;
  SHARED_MEMORY(T, shared);
  const Geometry& at = p.at;
  const int pixels = at.view.positions.by, plane = at.view.height * at.view.width, depth = at.channels * at.view.taps.by;
  const Tile tile = Tile::at(blockIdx.x, (at.outputs + M - 1) / M, p.shares, at.groups);
  const int row = tile.row * M;
  const Share share =
      share_of<N>(Regions::of_image(p.places, tile.rest, pixels, at.regions), tile.column, at.regions);
  if (share.count == 0) return;
  const T* weight = filters_of<T>(p.filters, at, tile.rest, share.region, tile.group) + row * depth;
  const Matrix<T, FILTERS, true> filters{weight, at.outputs - row, depth, depth};
  const T* x = planes_of<T>(p.x, tile.rest, at.groups, tile.group, at.channels, plane);
  Block product;
  product.clear();
  if constexpr (POSITIONS > 0) {
    product.add(filters, ListedPixels<T, false>{x, pixels, depth, share.pixels, share.count}, 0, depth, shared);
  } else {
    typedef Gathered<T, POSITIONS> Pixels;
    product.add(filters, Listed<Pixels>{{at.view, x, 0, pixels, depth, 0}, share.pixels, share.count}, 0, depth,
                shared);
  }
  T* y = static_cast<T*>(p.y) + (static_cast<long long>(tile.rest) * at.groups + tile.group) * at.outputs * pixels;
  store_listed(product, y + row * pixels, share, at.outputs - row, pixels);
}

struct TapGradients {
  const void* gradient;  // [N, G * outputs, Ho, Wo]
  const void* filters;   // [N, regions, G * outputs, channels * k * k]
  const int* places;
  void* result;          // [N, G * channels * k * k, Ho, Wo]
  Geometry at;           // its channels are channels * k * k, and its view has one tap
  int shares;
};

// The same backwards, to what each output sees through each of its taps: rows are taps of channels, k outputs. Where
// each output sees just its own position, that is the input's gradient.
template <typename T, typename Result, int M, int N, int FILTERS>
__global__ void __launch_bounds__(2 * M, RESIDENT<M, N, FILTERS>) tap_gradients(const TapGradients p) {
  typedef Product<T, M, N> Block;
  SHARED_MEMORY(T, shared);
  const Geometry& at = p.at;
  const int pixels = at.view.positions.by;
  const Tile tile = Tile::at(blockIdx.x, (at.channels + M - 1) / M, p.shares, at.groups);
  const int row = tile.row * M;
  const Share share =
      share_of<N>(Regions::of_image(p.places, tile.rest, pixels, at.regions), tile.column, at.regions);
  if (share.count == 0) return;
  const T* weight = filters_of<T>(p.filters, at, tile.rest, share.region, tile.group) + row;
  const T* gradient = planes_of<T>(p.gradient, tile.rest, at.groups, tile.group, at.outputs, pixels);
  Block product;
  product.clear();
  product.add(Matrix<T, FILTERS, false>{weight, at.channels - row, at.outputs, at.channels},
              ListedPixels<T, false>{gradient, pixels, at.outputs, share.pixels, share.count}, 0, at.outputs, shared);
  const long long first = (static_cast<long long>(tile.rest) * at.groups + tile.group) * at.channels + row;
  store_listed(product, static_cast<Result*>(p.result) + first * pixels, share, at.channels - row, pixels);
}

struct FilterGradient {
  const void* gradient;  // [N, G * outputs, Ho, Wo]
  const void* x;         // [N, G * channels, H, W]
  const int* places;
  void* result;          // [N, regions, G * outputs, channels, k, k]
  Geometry at;
};

// Rows are outputs, columns taps, k the pixels of one region of one image; regions without pixels become zeros.
template <typename T, int M, int N, bool POINTWISE>
__global__ void __launch_bounds__(2 * M, M == 64 ? 3 : N == 64 ? 2 : 1) filter_gradient(const FilterGradient p) {
  typedef Product<T, M, N> Block;
  SHARED_MEMORY(T, shared);
  const Geometry& at = p.at;
  const int pixels = at.view.positions.by, plane = at.view.height * at.view.width, depth = at.channels * at.view.taps.by;
  const Tile tile = Tile::at(blockIdx.x, (at.outputs + M - 1) / M, (depth + N - 1) / N, at.groups);
  const int image = tile.rest / at.regions, region = tile.rest - image * at.regions;
  const int row = tile.row * M, column = tile.column * N;
  const Regions regions = Regions::of_image(p.places, image, pixels, at.regions);
  const int* list = regions.by_region + regions.begins[region];
  const int count = regions.begins[region + 1] - regions.begins[region];
  const T* gradient = planes_of<T>(p.gradient, image, at.groups, tile.group, at.outputs, pixels);
  const T* x = planes_of<T>(p.x, image, at.groups, tile.group, at.channels, plane);
  const ListedPixels<T, true> gradients{gradient + row * pixels, pixels, at.outputs - row, list, count};
  Block product;
  product.clear();
  if constexpr (POINTWISE) {
    product.add(gradients, ListedPixels<T, true>{x + column * pixels, pixels, depth - column, list, count}, 0, count,
                shared);
  } else {
    typedef Windows<T, true> Pixels;
    product.add(gradients, Listed<Pixels>{{at.view, x, 0, pixels, depth, column}, list, count}, 0, count, shared);
  }
  T* result = static_cast<T*>(p.result) + (filters_of<T>(p.result, at, image, region, tile.group) -
                                           static_cast<const T*>(p.result));
  product.each([&](int i, int j, const float(&sums)[Block::RUN]) {
    if (row + i >= at.outputs || column + j >= depth) return;
    T* run = result + (row + i) * depth + column + j;
    if (depth % Block::RUN == 0) {
      store_floats<T, Block::RUN>(run, sums);
    } else {
#pragma unroll
      for (int e = 0; e < Block::RUN; ++e)
        if (column + j + e < depth) run[e] = from_float<T>(sums[e]);
    }
  });
}

struct Responses {
  const void* gradient;  // [N, G * outputs, Ho, Wo]
  const void* x;         // [N, G * channels, H, W]
  const void* filters;   // [N, regions, G * outputs, channels, k, k]
  float* shares;         // [N, regions, Ho, Wo]
  Geometry at;
};

// Rows are outputs, columns pixels whatever their region, k taps: the response of one region to every pixel, at once
// multiplied by the output's gradient and summed over the outputs, tile after tile. POSITIONS neighbouring pixels are
// loaded at once where the only tap sees just its own position; else windows are gathered, as above.
template <typename T, int M, int N, int FILTERS, int POSITIONS>
__global__ void __launch_bounds__(2 * M, M == 64 || N == 64 || (FILTERS == 8 && POSITIONS == 4) ? 2 : 1) responses(const Responses p) {
  typedef Product<T, M, N> Block;
  SHARED_MEMORY(T, shared);
  const Geometry& at = p.at;
  const int pixels = at.view.positions.by, plane = at.view.height * at.view.width, depth = at.channels * at.view.taps.by;
  const int columns = (pixels + N - 1) / N, stack = blockIdx.x / columns, column = (blockIdx.x - stack * columns) * N;
  const int image = stack / at.regions, region = stack - image * at.regions;
  float dots[Block::RUNS][Block::RUN] = {};
  for (int group = 0; group < at.groups; ++group) {
    const T* weight = filters_of<T>(p.filters, at, image, region, group);
    const T* x = planes_of<T>(p.x, image, at.groups, group, at.channels, plane);
    const T* gradient = planes_of<T>(p.gradient, image, at.groups, group, at.outputs, pixels);
    for (int row = 0; row < at.outputs; row += M) {
      const Matrix<T, FILTERS, true> filters{weight + row * depth, at.outputs - row, depth, depth};
      Block product;
      product.clear();
      if constexpr (POSITIONS > 0)
        product.add(filters, Planes<T, POSITIONS, false>{at.view.positions, x, 0, pixels, at.channels, column}, 0,
                    depth, shared);
      else
        product.add(filters, Gathered<T, POSITIONS>{at.view, x, 0, pixels, depth, column}, 0, depth, shared);
      product.each([&](int i, int j, const float(&sums)[Block::RUN]) {
        if (row + i >= at.outputs) return;
        const T* run = gradient + (row + i) * pixels + column + j;
        const int number = (j - Block::first_column()) / Block::RUN_STEP;
#pragma unroll
        for (int e = 0; e < Block::RUN; ++e)
          if (column + j + e < pixels) dots[number][e] = fmaf(sums[e], to_float(run[e]), dots[number][e]);
      });
    }
  }
  // Each group of rows has a sum of its own for every column; they are added in order.
  float* sums = reinterpret_cast<float*>(shared);
  __syncthreads();
#pragma unroll
  for (int run = 0; run < Block::RUNS; ++run)
#pragma unroll
    for (int e = 0; e < Block::RUN; ++e)
      sums[Block::row_group() * N + Block::first_column() + run * Block::RUN_STEP + e] = dots[run][e];
  __syncthreads();
  if (threadIdx.x < N && column + threadIdx.x < pixels) {
    float sum = 0;
    for (int rows = 0; rows < M / 8; ++rows) sum += sums[rows * N + threadIdx.x];
    p.shares[static_cast<long long>(stack) * pixels + column + threadIdx.x] = sum;
  }
}
