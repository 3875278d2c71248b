// Convolution as matrix products over its windows, which are gathered while loading and never written out.
//
// Predicted bound on an H200 (not measured; README.md has the counts): in 16 bits the tensor cores at 128 rows a tile,
// where issuing what gathers takes 80 to 100 % of their time; issue at 64 rows, at stride > 1 backward, and where a
// weight gradient gathers pixel by pixel (1.05, 2.2 and 1.6 to 2.5 times theirs). In float32 issue, 1.3 to 1.5 times
// the time of the multiply-adds.
#include "sums.cuh"
#include "windows.cuh"

// The block's place: consecutive blocks share their positions, which cost more to load than filters.
struct Tile {
  int row, column, group, rest;

  DEVICE Tile at(int block, int rows, int columns, int groups) {
    const int columns_at = block / rows, groups_at = columns_at / columns, rest = groups_at / groups;
    return {block - columns_at * rows, columns_at - groups_at * columns, groups_at - rest * groups, rest};
  }
};

// How windows are gathered, where kernels are told of no POSITIONS to load at once: pixel by pixel from at most 15 x 15
// taps or from any, or eight pixels at once and one beside them.
constexpr int FEW_TAPS = 0, ANY_TAPS = -1, BESIDE = -2;

template <typename T, int HOW>
struct Gathered {
  typedef Windows<T, false> Operand;
};
template <typename T>
struct Gathered<T, FEW_TAPS> {
  typedef SmallWindows<T> Operand;
};
template <typename T>
struct Gathered<T, BESIDE> {
  typedef WindowsBeside<T, false> Operand;
};
template <typename T, int HOW>
using Seen = typename Gathered<T, HOW>::Operand;

struct Forward {
  const void* x;       // [N, G * channels, H, W]
  const void* weight;  // [G * outputs, channels, kh, kw]
  const void* bias;    // [G * outputs] or null
  void* y;             // [N, G * outputs, Ho, Wo]
  View view;
  int images, groups, channels, outputs;
};

// Rows are outputs, columns positions, k taps. The gradient of an input at stride 1 is the same, of the output's
// gradient and filters whose inputs and outputs are swapped, in a view that goes backward. FILTERS values of a filter
// are loaded at once, and POSITIONS neighbouring pixels where the only tap sees just its own position; else windows are
// gathered.
template <typename T, int M, int N, int FILTERS, int POSITIONS>
__global__ void __launch_bounds__(2 * M, 256 / M) forward(const Forward p) {
  typedef Product<T, M, N> Block;
  SHARED_MEMORY(T, shared);
  const int plane = p.view.positions.by, positions = p.images * plane, depth = p.channels * p.view.taps.by;
  const Tile tile = Tile::at(blockIdx.x, (p.outputs + M - 1) / M, (positions + N - 1) / N, p.groups);
  const int row = tile.row * M, column = tile.column * N, output = tile.group * p.outputs;
  const T* weight = static_cast<const T*>(p.weight) + static_cast<long long>(output + row) * depth;
  const Matrix<T, FILTERS, true> filters{weight, p.outputs - row, depth, depth};
  const long long channel_size = static_cast<long long>(p.view.height) * p.view.width;
  const T* x = static_cast<const T*>(p.x) + tile.group * p.channels * channel_size;
  const long long image_size = p.groups * p.channels * channel_size;
  Block product;
  product.clear();
  if constexpr (POSITIONS > 0)
    product.add(filters, Planes<T, POSITIONS, false>{p.view.positions, x, image_size, positions, p.channels, column},
                0, depth, shared);
  else
    product.add(filters, Seen<T, POSITIONS>{p.view, x, image_size, positions, depth, column}, 0, depth, shared);

  if (p.bias) {
    const T* bias = static_cast<const T*>(p.bias) + output + row;
    product.shift([&](int i) { return row + i < p.outputs ? to_float(bias[i]) : 0.0f; });
  }
  T* y = static_cast<T*>(p.y) + static_cast<long long>(output + row) * plane;
  store_tile(product, y, static_cast<long long>(p.groups) * p.outputs * plane, p.view.positions, p.outputs - row,
             column, positions);
}

struct StridedInputGradient {
  const void* gradient;  // [N, G * outputs, Ho, Wo]
  const void* weight;    // [G * outputs, channels, kh, kw]
  void* result;          // [N, G * channels, H, W]
  View view;             // of every stride-th pixel into the gradient, but for where it begins and how it steps
  int images, groups, channels, outputs, height, width;
  int stride, every;
};

// The gradient of an input for any stride. Rows are channels, columns pixels, k outputs and taps. A block has pixels of
// one residue modulo the stride in each direction: the same taps reach all of them, and none is tried in vain. Pixels
// that no tap reaches become zeros.
template <typename T, int M, int N, int POSITIONS>
__global__ void __launch_bounds__(2 * M, M == 64 ? 3 : 2) strided_input_gradient(const StridedInputGradient p) {
  typedef Product<T, M, N> Block;
  SHARED_MEMORY(T, shared);
  const int positions = p.images * p.view.positions.by;
  const Tile tile = Tile::at(blockIdx.x, (p.channels + M - 1) / M, (positions + N - 1) / N, p.groups);
  const int residue_y = tile.rest / p.stride, residue_x = tile.rest - residue_y * p.stride;
  const int row = tile.row * M, column = tile.column * N;
  const int size = p.view.taps.by, kernel_width = p.view.taps_across.by, kernel_height = size / kernel_width;
  const Reach rows = reach(residue_y, kernel_height, p.stride, p.view.top, p.view.down, p.every);
  const Reach columns = reach(residue_x, kernel_width, p.stride, p.view.left, p.view.across, p.every);
  const int taps = rows.taps * columns.taps, depth = p.outputs * taps, gradient_plane = p.view.height * p.view.width;
  const T* weight =
      static_cast<const T*>(p.weight) + static_cast<long long>(tile.group) * p.outputs * p.channels * size;
  const T* gradient =
      static_cast<const T*>(p.gradient) + static_cast<long long>(tile.group) * p.outputs * gradient_plane;
  View view = p.view;
  view.top = rows.from, view.left = columns.from, view.down = rows.step, view.across = columns.step;
  view.taps_across = Divisor::of(max(columns.taps, 1)), view.taps = Divisor::of(max(taps, 1));
  const ReachingFilters<T> filters{weight,  p.channels,       size,      kernel_width, p.every, rows,
                                   columns, view.taps_across, view.taps, depth,        row};
  const long long image_size = static_cast<long long>(p.groups) * p.outputs * gradient_plane;
  Block product;
  product.clear();
  product.add(filters, Seen<T, POSITIONS>{view, gradient, image_size, positions, depth, column}, 0, depth, shared);

  const long long plane = static_cast<long long>(p.height) * p.width;
  T* result = static_cast<T*>(p.result) + (static_cast<long long>(tile.group) * p.channels + row) * plane;
#pragma unroll
  for (int e = 0; e < Block::RUN; ++e)
    product.each(
        [&](int j) -> long long {
          const int position = column + j + e, image = p.view.positions.quotient(position);
          const int rest = position - image * p.view.positions.by, y = p.view.columns.quotient(rest);
          const int h = residue_y + y * p.stride, w = residue_x + (rest - y * p.view.columns.by) * p.stride;
          if (position >= positions || h >= p.height || w >= p.width) return -1;
          return plane * p.groups * p.channels * image + h * p.width + w;
        },
        [&](int i, long long place, const float(&sums)[Block::RUN]) {
          if (row + i < p.channels && place >= 0) result[place + i * plane] = from_float<T>(sums[e]);
        });
}

struct WeightGradient {
  const void* gradient;  // [N, G * outputs, Ho, Wo]
  const void* x;         // [N, G * channels, H, W]
  float* partials;       // [splits, G * outputs, channels * kh * kw]
  View view;
  int images, groups, channels, outputs, share;
};

// Rows are outputs, columns taps, k positions of all images. Blocks share these, `share` positions each; their
// partial sums are added later in a fixed order. VECTOR positions of the gradient are loaded at once, and
// pixels as well where POSITIONS says that the only tap sees just its own position.
template <typename T, int M, int N, int VECTOR, int POSITIONS>
__global__ void __launch_bounds__(2 * M, M == 64 ? 3 : 2) weight_gradient(const WeightGradient p) {
  typedef Product<T, M, N> Block;
  SHARED_MEMORY(T, shared);
  const int plane = p.view.positions.by, positions = p.images * plane, depth = p.channels * p.view.taps.by;
  const Tile tile = Tile::at(blockIdx.x, (p.outputs + M - 1) / M, (depth + N - 1) / N, p.groups);
  const int row = tile.row * M, column = tile.column * N, output = tile.group * p.outputs;
  const long long channel_size = static_cast<long long>(p.view.height) * p.view.width;
  const T* x = static_cast<const T*>(p.x) + tile.group * p.channels * channel_size;
  const long long image_size = p.groups * p.channels * channel_size;
  const T* gradient = static_cast<const T*>(p.gradient) + static_cast<long long>(output) * plane;
  const Planes<T, VECTOR, true> gradients{
      p.view.positions, gradient, static_cast<long long>(p.groups) * p.outputs * plane, positions, p.outputs, row};
  const int first = tile.rest * p.share, last = min(first + p.share, positions);
  Block product;
  product.clear();
  if constexpr (POSITIONS > 0)
    product.add(gradients, Planes<T, VECTOR, true>{p.view.positions, x, image_size, positions, p.channels, column},
                first, last, shared);
  else if constexpr (POSITIONS == BESIDE)
    product.add(gradients, WindowsBeside<T, true>{p.view, x, image_size, positions, depth, column}, first, last,
                shared);
  else
    product.add(gradients, Windows<T, true>{p.view, x, image_size, positions, depth, column}, first, last, shared);

  float* partials = p.partials + (static_cast<long long>(tile.rest) * p.groups * p.outputs + output) * depth;
  product.each([&](int i, int j, const float(&sums)[Block::RUN]) {
#pragma unroll
    for (int e = 0; e < Block::RUN; ++e)
      if (row + i < p.outputs && column + j + e < depth)
        partials[static_cast<long long>(row + i) * depth + column + j + e] = sums[e];
  });
}
