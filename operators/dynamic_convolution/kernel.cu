// Dynamic convolution as matrix products, one for each image: its filters are mixed from the experts' while they are
// loaded, its windows gathered, and neither is ever written out.
#include "mixtures.cuh"
#include "sums.cuh"

struct Experts {
  int experts;
  int images, groups, channels, outputs;  // channels and outputs of a group
};

// The block's place: consecutive blocks have the same windows, which cost more to load than filters.
struct Tile {
  int row, group, rest;

  DEVICE Tile at(int block, int rows, int groups) {
    const int groups_at = block / rows, rest = groups_at / groups;
    return {block - groups_at * rows, groups_at - rest * groups, rest};
  }
};

// A block's columns: threads with the same threadIdx.y have a tile of their own, in shared memory of their own. They
// load the same experts' filters at about the same time, so that all but the first find them in the cache. Beyond the
// last image they go through the same motions, with nothing to load and nothing to store. Where experts are counted in
// 16 bits, three tiles would lack a register or two.
template <typename T, int EXPERTS>
constexpr int TILES = EXPERTS == 0 && sizeof(T) == 2 ? 2 : 3;

struct Columns {
  int image, first;
  bool real;

  DEVICE Columns at(int block, int tiles, int width, int images) {
    const int number = block * blockDim.y + threadIdx.y, image = number / tiles;
    return {image < images ? image : 0, (number - image * tiles) * width, image < images};
  }
};

// Tiles are of ROWS x COLUMNS.
constexpr int ROWS = 64, COLUMNS = 64;

// The part of a block's shared memory that threads with the same threadIdx.y have.
template <typename T>
DEVICE T* own_part(T* shared) {
  return shared + threadIdx.y * (160 * (ROWS + COLUMNS) / sizeof(T));
}

// A group's planes of one image.
template <typename T>
DEVICE const T* planes_of(const void* images, int image, int groups, int group, int channels, int plane) {
  return static_cast<const T*>(images) + (static_cast<long long>(image) * groups + group) * channels * plane;
}

struct Forward {
  const void* x;          // [N, G * channels, H, W]
  const void* weight;     // [experts, G * outputs, channels, k, k]
  const void* bias;       // [experts, G * outputs] or null
  const void* attention;  // [N, experts]
  void* y;                // [N, G * outputs, Ho, Wo]
  View view;
  Experts of;
};

// Gathers windows by the quicker way where they have at most 15 x 15 taps.
template <typename T, int POSITIONS>
using Gathered = typename Choice<(POSITIONS == 0), SmallWindows<T>, Windows<T, false>>::Type;

// Rows are outputs, columns positions, k taps. FILTERS values of a filter are loaded at once, and POSITIONS
// neighbouring pixels where the only tap sees just its own position; else windows are gathered: 0 where they are small,
// -1 any. EXPERTS is their number where a kernel is made for it, else 0.
template <typename T, int EXPERTS, int FILTERS, int POSITIONS>
__global__ void __launch_bounds__(2 * ROWS * TILES<T, EXPERTS>, 1) forward(const Forward p) {
  typedef Product<T, ROWS, COLUMNS> Block;
  SHARED_MEMORY(T, all_shared);
  T* shared = own_part(all_shared);
  const Experts& of = p.of;
  const int pixels = p.view.positions.by, plane = p.view.height * p.view.width, depth = of.channels * p.view.taps.by;
  const Tile tile = Tile::at(blockIdx.x, (of.outputs + ROWS - 1) / ROWS, of.groups);
  const Columns at = Columns::at(tile.rest, (pixels + COLUMNS - 1) / COLUMNS, COLUMNS, of.images);
  const int row = tile.row * ROWS, column = at.first, output = tile.group * of.outputs + row;
  const int rows = at.real ? of.outputs - row : 0, columns = at.real ? pixels : 0;
  const Attention<T, EXPERTS> attention(p.attention, at.image, of.experts);
  const MixedMatrix<T, EXPERTS, FILTERS, true> filters{
      static_cast<const T*>(p.weight) + static_cast<long long>(output) * depth,
      of.groups * of.outputs * depth, attention, rows, depth, depth};
  const T* x = planes_of<T>(p.x, at.image, of.groups, tile.group, of.channels, plane);
  Block product;
  product.clear();
  if constexpr (POSITIONS > 0)
    product.add(filters, Planes<T, POSITIONS, false>{p.view.positions, x, 0, columns, of.channels, column}, 0, depth,
                shared);
  else
    product.add(filters, Gathered<T, POSITIONS>{p.view, x, 0, columns, depth, column}, 0, depth, shared);

  const T* bias = p.bias ? static_cast<const T*>(p.bias) + output : nullptr;
  T* y = static_cast<T*>(p.y) +
         (static_cast<long long>(at.image) * of.groups * of.outputs + output) * pixels;
  product.each([&](int i, int j, const float(&sums)[Block::RUN]) {
    if (i >= rows) return;
    float offset[1] = {0}, values[Block::RUN];
    if (bias) mix(offset, bias + i, of.groups * of.outputs, attention);
#pragma unroll
    for (int e = 0; e < Block::RUN; ++e) values[e] = sums[e] + offset[0];
    store_run(y + i * pixels, 0, p.view.positions, column + j, columns, values);
  });
}

struct InputGradient {
  const void* gradient;   // [N, G * outputs, Ho, Wo]
  const void* weight;     // [experts, G * outputs, channels, k, k]
  const void* attention;  // [N, experts]
  void* result;           // [N, G * channels, H, W]
  View view;              // of pixels into the gradient, the other way round
  Experts of;
};

// For stride 1. Rows are channels, columns pixels, k outputs and taps.
template <typename T, int EXPERTS, int FILTERS, int POSITIONS>
__global__ void __launch_bounds__(2 * ROWS * TILES<T, EXPERTS>, 1) input_gradient(const InputGradient p) {
  typedef Product<T, ROWS, COLUMNS> Block;
  SHARED_MEMORY(T, all_shared);
  T* shared = own_part(all_shared);
  const Experts& of = p.of;
  const int pixels = p.view.positions.by, plane = p.view.height * p.view.width, taps = p.view.taps.by;
  const Tile tile = Tile::at(blockIdx.x, (of.channels + ROWS - 1) / ROWS, of.groups);
  const Columns at = Columns::at(tile.rest, (pixels + COLUMNS - 1) / COLUMNS, COLUMNS, of.images);
  const int row = tile.row * ROWS, column = at.first;
  const int channels = at.real ? of.channels : 0, columns = at.real ? pixels : 0, depth = of.outputs * taps;
  const Attention<T, EXPERTS> attention(p.attention, at.image, of.experts);
  const int size = depth * of.channels, expert_size = of.groups * size;
  const T* weight = static_cast<const T*>(p.weight) + tile.group * size;
  const T* gradient = planes_of<T>(p.gradient, at.image, of.groups, tile.group, of.outputs, plane);
  Block product;
  product.clear();
  if constexpr (POSITIONS > 0) {
    product.add(MixedMatrix<T, EXPERTS, FILTERS, false>{weight + row, expert_size, attention, channels - row, depth,
                                                        of.channels},
                Planes<T, POSITIONS, false>{p.view.positions, gradient, 0, columns, depth, column}, 0, depth, shared);
  } else {
    const MixedReachingFilters<T, EXPERTS> filters{
        {weight, channels, taps, p.view.taps_across.by, 1, {}, {}, p.view.taps_across, p.view.taps, depth, row},
        expert_size,
        attention};
    product.add(filters, Gathered<T, POSITIONS>{p.view, gradient, 0, columns, depth, column}, 0, depth, shared);
  }
  T* result = static_cast<T*>(p.result) +
              (static_cast<long long>(at.image) * of.groups + tile.group) * of.channels * pixels;
  product.each([&](int i, int j, const float(&sums)[Block::RUN]) {
    if (row + i < channels) store_run(result + (row + i) * pixels, 0, p.view.positions, column + j, columns, sums);
  });
}

struct StridedInputGradient {
  const void* gradient;   // [N, G * outputs, Ho, Wo]
  const void* weight;     // [experts, G * outputs, channels, k, k]
  const void* attention;  // [N, experts]
  void* result;           // [N, G * channels, H, W]
  View view;              // of every stride-th pixel into the gradient, but for where it begins and how it steps
  Experts of;
  int height, width, stride, every;
};

// The same for any stride. A block has pixels of one residue modulo the stride in each direction: the same taps reach
// all of them, and none is tried in vain. Pixels that no tap reaches become zeros.
template <typename T, int EXPERTS, int POSITIONS>
__global__ void __launch_bounds__(2 * ROWS * TILES<T, EXPERTS>, 1) strided_input_gradient(const StridedInputGradient p) {
  typedef Product<T, ROWS, COLUMNS> Block;
  SHARED_MEMORY(T, all_shared);
  T* shared = own_part(all_shared);
  const Experts& of = p.of;
  const int positions = p.view.positions.by, pixels = p.view.height * p.view.width, taps = p.view.taps.by;
  const int kernel = p.view.taps_across.by, residues = p.stride * p.stride;
  const Tile tile = Tile::at(blockIdx.x, (of.channels + ROWS - 1) / ROWS, of.groups);
  const Columns at = Columns::at(tile.rest / residues, (positions + COLUMNS - 1) / COLUMNS, COLUMNS, of.images);
  const int residue = tile.rest % residues, residue_y = residue / p.stride, residue_x = residue - residue_y * p.stride;
  const int row = tile.row * ROWS, column = at.first;
  const int channels = at.real ? of.channels : 0, columns = at.real ? positions : 0;
  const Attention<T, EXPERTS> attention(p.attention, at.image, of.experts);
  const Reach down = reach(residue_y, kernel, p.stride, p.view.top, p.view.down, p.every);
  const Reach across = reach(residue_x, kernel, p.stride, p.view.left, p.view.across, p.every);
  const int reaching = down.taps * across.taps, depth = of.outputs * reaching, size = of.outputs * of.channels * taps;
  View view = p.view;
  view.top = down.from, view.left = across.from, view.down = down.step, view.across = across.step;
  view.taps_across = Divisor::of(max(across.taps, 1)), view.taps = Divisor::of(max(reaching, 1));
  const T* weight = static_cast<const T*>(p.weight) + tile.group * size;
  const T* gradient = planes_of<T>(p.gradient, at.image, of.groups, tile.group, of.outputs, pixels);
  const MixedReachingFilters<T, EXPERTS> filters{
      {weight, channels, taps, kernel, p.every, down, across, view.taps_across, view.taps, depth, row},
      of.groups * size,
      attention};
  Block product;
  product.clear();
  product.add(filters, Gathered<T, POSITIONS>{view, gradient, 0, columns, depth, column}, 0, depth, shared);

  const int plane = p.height * p.width;
  T* result =
      static_cast<T*>(p.result) + (static_cast<long long>(at.image) * of.groups + tile.group) * of.channels * plane;
  product.each([&](int i, int j, const float(&sums)[Block::RUN]) {
    if (row + i >= channels) return;
#pragma unroll
    for (int e = 0; e < Block::RUN; ++e) {
      const int position = column + j + e, y = p.view.columns.quotient(position);
      const int h = residue_y + y * p.stride, w = residue_x + (position - y * p.view.columns.by) * p.stride;
      if (position < columns && h < p.height && w < p.width)
        result[(row + i) * plane + h * p.width + w] = from_float<T>(sums[e]);
    }
  });
}

// Experts whose gradients a block keeps: the first in registers, the last in shared memory, where each thread has a
// place of its own. Some devices' registers would not quite hold all.
constexpr int AT_ONCE = 4, IN_REGISTERS = 3;

struct WeightGradient {
  const void* gradient;   // [N, G * outputs, Ho, Wo]
  const void* x;          // [N, G * channels, H, W]
  const void* weight;     // [experts, G * outputs, channels, k, k]
  const void* attention;  // [N, experts]
  void* result;           // [splits, experts, G * outputs, channels, k, k] or null
  float* products;        // [N, experts, tiles] or null: of each tile of an image's gradient with each expert's filters
  View view;
  Experts of;
  int share, splits;  // share: images of a block
};

// Rows are outputs, columns taps, k positions of one image at a time. A block owns a tile of AT_ONCE experts' filters:
// image by image it makes the tile of the image's own gradient, adds to each expert's what the attention gives it, and
// multiplies it with the experts' filters for the attention's own gradient.
template <typename T, typename Result, int POSITIONS>
__global__ void __launch_bounds__(128, 2) weight_gradient(const WeightGradient p) {
  typedef Product<T, ROWS, COLUMNS> Block;
  constexpr bool POINTWISE = POSITIONS > 0;
  constexpr int RUN = Block::RUN, RUNS = ROWS * COLUMNS / Block::THREADS / RUN;
  SHARED_MEMORY(T, shared);
  float* warp_sums = reinterpret_cast<float*>(shared) + 160 * (ROWS + COLUMNS) / 4;
  // [RUNS, THREADS, RUN]: neighbouring threads have neighbouring places.
  float* parked = warp_sums + 16 + threadIdx.x * RUN;
  const Experts& of = p.of;
  const int pixels = p.view.positions.by, plane = p.view.height * p.view.width, depth = of.channels * p.view.taps.by;
  const int rows = (of.outputs + ROWS - 1) / ROWS, columns = (depth + COLUMNS - 1) / COLUMNS;
  const int tiles = rows * columns * of.groups;
  const Tile tile = Tile::at(blockIdx.x, rows, of.groups);
  const int row = tile.row * ROWS, column = tile.rest % columns * COLUMNS, part = tile.rest / columns;
  const int split = part % p.splits, expert = part / p.splits * AT_ONCE, experts = min(AT_ONCE, of.experts - expert);
  const int output = tile.group * of.outputs;
  const int expert_size = of.groups * of.outputs * depth, first = expert * expert_size + (output + row) * depth + column;
  const T* weight = static_cast<const T*>(p.weight) + first;
  float gradients[IN_REGISTERS][RUNS][RUN] = {};
  for (int i = 0; i < RUNS * RUN; ++i) parked[i / RUN * Block::THREADS * RUN + i % RUN] = 0;
  Block product;
  for (int image = split * p.share; image < min(of.images, (split + 1) * p.share); ++image) {
    const T* gradient = planes_of<T>(p.gradient, image, of.groups, tile.group, of.outputs, pixels);
    const T* x = planes_of<T>(p.x, image, of.groups, tile.group, of.channels, plane);
    const Planes<T, POINTWISE ? POSITIONS : 1, true> values{p.view.positions, gradient, 0, pixels, of.outputs, row};
    product.clear();
    if constexpr (POINTWISE)
      product.add(values, Planes<T, POSITIONS, true>{p.view.positions, x, 0, pixels, of.channels, column}, 0, pixels,
                  shared);
    else
      product.add(values, Windows<T, true>{p.view, x, 0, pixels, depth, column}, 0, pixels, shared);

    const T* attention = static_cast<const T*>(p.attention) + static_cast<long long>(image) * of.experts + expert;
    float shares[AT_ONCE];
#pragma unroll
    for (int e = 0; e < AT_ONCE; ++e) shares[e] = e < experts ? to_float(attention[e]) : 0;
    int run = 0;
    product.each([&](int, int, const float(&sums)[RUN]) {
#pragma unroll
      for (int e = 0; e < IN_REGISTERS; ++e)
#pragma unroll
        for (int at = 0; at < RUN; ++at) gradients[e][run][at] = fmaf(shares[e], sums[at], gradients[e][run][at]);
      float values[RUN], *place = parked + run * Block::THREADS * RUN;
      load_floats<float, RUN>(values, place);
#pragma unroll
      for (int at = 0; at < RUN; ++at) values[at] = fmaf(shares[IN_REGISTERS], sums[at], values[at]);
      store_floats<float, RUN>(place, values);
      ++run;
    });
    if (!p.products) continue;
    // One expert after the other: beside their gradients, the filters of all would have no registers.
#pragma unroll 1
    for (int e = 0; e < experts; ++e) {
      const T* filters = weight + e * expert_size;
      float sum = 0;
      product.each([&](int i, int j, const float(&sums)[RUN]) {
        if (row + i >= of.outputs) return;
#pragma unroll
        for (int at = 0; at < RUN; ++at)
          if (column + j + at < depth) sum = fmaf(sums[at], to_float(filters[i * depth + j + at]), sum);
      });
      sum = warp_sum(sum);
      if (threadIdx.x % 32 == 0) warp_sums[threadIdx.x / 32 * AT_ONCE + e] = sum;
    }
    __syncthreads();
    if (threadIdx.x < experts) {
      float sum = 0;
      for (int warp = 0; warp < 4; ++warp) sum += warp_sums[warp * AT_ONCE + threadIdx.x];
      const long long at = static_cast<long long>(image) * of.experts + expert + threadIdx.x;
      p.products[at * tiles + blockIdx.x % tiles] = sum;
    }
  }
  if (!p.result) return;
  Result* result = static_cast<Result*>(p.result) + static_cast<long long>(split) * of.experts * expert_size + first;
  int run = 0;
  product.each([&](int i, int j, const float(&)[RUN]) {
#pragma unroll
    for (int e = 0; e < AT_ONCE; ++e)
#pragma unroll
      for (int at = 0; at < RUN; ++at)
        if (e < experts && row + i < of.outputs && column + j + at < depth)
          result[e * expert_size + i * depth + j + at] = from_float<Result>(
              e < IN_REGISTERS ? gradients[e % IN_REGISTERS][run][at] : parked[run * Block::THREADS * RUN + at]);
    ++run;
  });
}
