// Involution by multiply-adds in float: any dtype, any group, no dilation, stride 1 or 2.
//
// A block holds its tile of up to 16 channels of the image in shared memory, as floats. A thread makes four
// neighbouring pixels of eight channels: a tap that it loads serves eight times, a value of the image up to K times.
#include "tile.cuh"

struct Blocked {
  const void* left;   // x; of the gradients, gradient
  const void* right;  // weight; of the gradient of weight, x
  void* result;
  int height, width, out_height, out_width;
  int group_channels, chunks;    // chunks of CHANNELS in a group
  int tiles_down, tiles_across;  // of the result
};

constexpr int PIXELS = 4;
constexpr int MEMBERS = 8;  // channels of a thread
constexpr int MARGIN = 4;   // columns of the image beyond either side of a tile: a vector, and enough for any window

// Loads values[first] and the VECTOR - 1 that follow from where they are in a row.
template <int VECTOR, typename T, int COUNT>
DEVICE void load_part(float (&values)[COUNT], const T* row, int first) {
  float part[VECTOR];
  load_floats<T, VECTOR>(part, row + first);
#pragma unroll
  for (int e = 0; e < VECTOR; ++e) values[first + e] = part[e];
}

// The tile of an image in shared memory: [row][channel][PITCH], column 0 being MARGIN columns left of the tile.
template <int CHANNELS, int SPAN, int COLUMNS>
struct FloatTile {
  static constexpr int PITCH = SPAN + 2 * MARGIN;
  // Lanes go along a tile's COLUMNS, then down: with this distance between rows they read consecutive banks throughout.
  static constexpr int ROW = CHANNELS * PITCH + COLUMNS % 32;

  // The block fills it with rows from `row` and columns from `column - MARGIN` on of `channels` channels, zeros beyond.
  template <int VECTOR, typename T>
  DEVICE void fill(float* to, const T* from, int channels, int rows, int row, int column, int height, int width) {
    constexpr int UNITS = PITCH / 4;
    const int thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
#pragma unroll 2
    for (int i = thread; i < rows * CHANNELS * UNITS; i += blockDim.x * blockDim.y * blockDim.z) {
      const int line = i / UNITS, unit = i - line * UNITS, channel = line % CHANNELS, from_row = row + line / CHANNELS;
      const int at = column - MARGIN + 4 * unit;
      const bool exists = channel < channels && from_row >= 0 && from_row < height;
      const T* source = from + (channel * height + from_row) * width + at;
      float* place = to + line / CHANNELS * ROW + channel * PITCH + 4 * unit;
      if constexpr (VECTOR > 1 && sizeof(T) == 4) {
#pragma unroll
        for (int e = 0; e < 4; e += VECTOR)
          copy_async<4 * VECTOR>(place + e, source + e, exists && at + e >= 0 && at + e < width);
      } else {
        float values[4] = {};
#pragma unroll
        for (int e = 0; e < 4; e += VECTOR)
          if (exists && at + e >= 0 && at + e < width) load_part<VECTOR>(values, source, e);
        store_floats<float, 4>(place, values);
      }
    }
    commit_copies();
    wait_for_copies<0>();
  }
};

// What a block works on: a tile of some channels of a group.
struct ChunkPlace {
  TilePlace tile;
  long long group;
  int first, channels;  // of the group's channels
};

DEVICE ChunkPlace chunk_place(const Blocked& p, int columns, int most) {
  const TilePlace tile = tile_place(p.tiles_down, p.tiles_across, blockDim.y, columns);
  const unsigned chunk = static_cast<unsigned>(tile.group), group = chunk / p.chunks;
  const int first = static_cast<int>(chunk - group * p.chunks) * most;
  return {tile, group, first, min(most, p.group_channels - first)};
}

// Four neighbours of a row, of which `columns` exist, a multiple of VECTOR.
template <int VECTOR, typename T>
DEVICE void load_four(float (&values)[PIXELS], const T* row, int columns) {
#pragma unroll
  for (int q = 0; q < PIXELS; ++q) values[q] = 0;
#pragma unroll
  for (int q = 0; q < PIXELS; q += VECTOR)
    if (VECTOR == PIXELS || q < columns) load_part<VECTOR>(values, row, q);
}

template <int VECTOR, typename T>
DEVICE void store_four(T* row, const float (&values)[PIXELS], int columns) {
#pragma unroll
  for (int q = 0; q < PIXELS; q += VECTOR) {
    float part[VECTOR];
#pragma unroll
    for (int e = 0; e < VECTOR; ++e) part[e] = values[q + e];
    if (VECTOR == PIXELS || q < columns) store_floats<T, VECTOR>(row + q, part);
  }
}

// COUNT floats of shared memory, VECTOR at a time.
template <int VECTOR, int COUNT>
DEVICE void load_window(float (&window)[COUNT], const float* from) {
#pragma unroll
  for (int i = 0; i < COUNT; i += VECTOR) {
    const Vector<float, VECTOR> vector = load_vector<float, VECTOR>(from + i);
#pragma unroll
    for (int e = 0; e < VECTOR; ++e) window[i + e] = __uint_as_float(vector.word[e]);
  }
}

// [N, C, Ho, Wo] of x [N, C, H, W] and weight [N, G, K, K, Ho, Wo]. block: COLUMNS / 4, rows, CHANNELS / 8.
//
// Predicted bound on an H200: memory in float32. At 56x56 and K = 7 an output takes 20 bytes, 1.23 cycles of a
// multiprocessor, about 87 thread-instructions, 0.68, of which 49 are its multiply-adds, and 84 bytes of shared memory,
// 0.66. With stride 2 eight warps in flight are too few to hide latency.
template <typename T, int K, int S, int CHANNELS, int COLUMNS, int VECTOR>
__global__ void __launch_bounds__(128) blocked_forward(const Blocked p) {
  typedef FloatTile<CHANNELS, COLUMNS * S, COLUMNS> Tile;
  constexpr int PAD = K / 2, WINDOW = ceil_div(MARGIN - PAD + (PIXELS - 1) * S + K, 4) * 4;
  const ChunkPlace place = chunk_place(p, COLUMNS, CHANNELS);
  SHARED_MEMORY(float, image);
  const T* x = static_cast<const T*>(p.left) + (place.group * p.group_channels + place.first) * (p.height * p.width);
  Tile::template fill<VECTOR>(image, x, place.channels, (blockDim.y - 1) * S + K, place.tile.row * S - PAD,
                               place.tile.column * S, p.height, p.width);
  __syncthreads();

  const int row = place.tile.row + threadIdx.y, column = place.tile.column + PIXELS * threadIdx.x;
  const int first = MEMBERS * threadIdx.z, columns = p.out_width - column, plane = p.out_height * p.out_width;
  if (row >= p.out_height || columns <= 0) return;
  const T* weight = static_cast<const T*>(p.right) + place.group * (K * K) * plane + row * p.out_width + column;
  const float* seen = image + threadIdx.y * S * Tile::ROW + first * Tile::PITCH + threadIdx.x * PIXELS * S;
  float sums[MEMBERS][PIXELS] = {};
#pragma unroll 1
  for (int a = 0; a < K; ++a) {
    float taps[K][PIXELS];
#pragma unroll
    for (int b = 0; b < K; ++b) load_four<VECTOR>(taps[b], weight + b * plane, columns);
#pragma unroll
    for (int m = 0; m < MEMBERS; ++m) {
      float window[WINDOW];
      load_window<4>(window, seen + m * Tile::PITCH);
#pragma unroll
      for (int b = 0; b < K; ++b)
#pragma unroll
        for (int q = 0; q < PIXELS; ++q)
          sums[m][q] = fmaf(taps[b][q], window[MARGIN - PAD + q * S + b], sums[m][q]);
    }
    weight += K * plane;
    seen += Tile::ROW;
  }
  T* y = static_cast<T*>(p.result) + (place.group * p.group_channels + place.first + first) * plane +
         row * p.out_width + column;
#pragma unroll
  for (int m = 0; m < MEMBERS; ++m)
    if (first + m < place.channels) store_four<VECTOR>(y + m * plane, sums[m], columns);
}

// The taps through which output columns see the pixels `column * S + 0..3`: taps[b][q] is tap b of output column
// `column + (q + PAD - b) / S` of a row, where that is whole and exists, else zero.
template <int K, int S, int VECTOR, typename T>
DEVICE void load_transposed(float (&taps)[K][PIXELS], const T* row, int plane, int column, int width) {
  constexpr int PAD = K / 2;
#pragma unroll
  for (int b = 0; b < K; ++b) {
    const T* from = row + b * plane;
    if constexpr (VECTOR > 1 && S == 1) {
      float around[3 * PIXELS] = {};
#pragma unroll
      for (int v = 0; v < 3 * PIXELS; v += VECTOR) {
        const int first = PIXELS + PAD - b, at = column + v - PIXELS;
        const bool needed = v + VECTOR > first && v < first + PIXELS;
        if (needed && at >= 0 && at < width) load_part<VECTOR>(around, from - PIXELS, v);
      }
#pragma unroll
      for (int q = 0; q < PIXELS; ++q) taps[b][q] = around[PIXELS + q + PAD - b];
    } else {
#pragma unroll
      for (int q = 0; q < PIXELS; ++q) {
        const int further = (q + PAD - b) / S, at = column + further;
        const bool seen = (q + PAD - b) % S == 0 && at >= 0 && at < width;
        taps[b][q] = seen ? to_float(from[further]) : 0;
      }
    }
  }
}

// [N, C, H, W] of gradient [N, C, Ho, Wo] and weight. block: COLUMNS / 4, rows, CHANNELS / 8.
//
// Predicted bound on an H200: memory in float32, 1.23 cycles, against about 100 thread-instructions, 0.78.
template <typename T, int K, int S, int CHANNELS, int COLUMNS, int VECTOR>
__global__ void __launch_bounds__(128) blocked_input_gradient(const Blocked p) {
  typedef FloatTile<CHANNELS, COLUMNS / S, COLUMNS> Tile;
  constexpr int PAD = K / 2, STEP = PIXELS / S, WINDOW = ceil_div(STEP + (PIXELS - 1 + PAD) / S + 1, STEP) * STEP;
  const ChunkPlace place = chunk_place(p, COLUMNS, CHANNELS);
  SHARED_MEMORY(float, image);
  const int plane = p.out_height * p.out_width, first_seen_row = (place.tile.row - PAD) >> (S - 1);
  const T* gradient = static_cast<const T*>(p.left) + (place.group * p.group_channels + place.first) * plane;
  Tile::template fill<VECTOR>(image, gradient, place.channels, (blockDim.y - 1 + 2 * PAD) / S + S, first_seen_row,
                               place.tile.column / S, p.out_height, p.out_width);
  __syncthreads();

  const int row = place.tile.row + threadIdx.y, column = place.tile.column + PIXELS * threadIdx.x;
  const int first = MEMBERS * threadIdx.z, columns = p.width - column;
  if (row >= p.height || columns <= 0) return;
  const T* weight = static_cast<const T*>(p.right) + place.group * (K * K) * plane + column / S;
  const float* seen = image + first * Tile::PITCH + threadIdx.x * STEP + MARGIN - STEP;
  float sums[MEMBERS][PIXELS] = {};
  // Output row i sees this row through kernel row `a` where i * S + a == row + PAD.
#pragma unroll 1
  for (int a = (row + PAD) % S; a < K; a += S) {
    const int i = (row + PAD - a) / S;
    if (row + PAD < a || i >= p.out_height) continue;
    float taps[K][PIXELS];
    load_transposed<K, S, VECTOR>(taps, weight + a * K * plane + i * p.out_width, plane, column / S, p.out_width);
#pragma unroll
    for (int m = 0; m < MEMBERS; ++m) {
      float window[WINDOW];
      load_window<STEP>(window, seen + (i - first_seen_row) * Tile::ROW + m * Tile::PITCH);
#pragma unroll
      for (int b = 0; b < K; ++b)
#pragma unroll
        for (int q = 0; q < PIXELS; ++q)
          if ((q + PAD - b) % S == 0) sums[m][q] = fmaf(taps[b][q], window[STEP + (q + PAD - b) / S], sums[m][q]);
    }
  }
  const int image_plane = p.height * p.width;
  T* grad_x = static_cast<T*>(p.result) + (place.group * p.group_channels + place.first + first) * image_plane +
              row * p.width + column;
#pragma unroll
  for (int m = 0; m < MEMBERS; ++m)
    if (first + m < place.channels) store_four<VECTOR>(grad_x + m * image_plane, sums[m], columns);
}

// [N, G, K, K, Ho, Wo] of gradient [N, C, Ho, Wo] and x [N, C, H, W], of groups of at most CHANNELS. A thread makes
// four pixels of every other kernel row. block: COLUMNS / 4, rows, 2.
//
// Predicted bound on an H200: memory in float32. At 56x56 and K = 7 a tap's gradient takes 6.6 bytes, 0.40 cycles, and
// 27 bytes of shared memory and 9 of L1, 0.29.
template <typename T, int K, int S, int CHANNELS, int COLUMNS, int VECTOR>
__global__ void __launch_bounds__(128) blocked_weight_gradient(const Blocked p) {
  typedef FloatTile<CHANNELS, COLUMNS * S, COLUMNS> Tile;
  constexpr int PAD = K / 2, WINDOW = ceil_div(MARGIN - PAD + (PIXELS - 1) * S + K, 4) * 4;
  const ChunkPlace place = chunk_place(p, COLUMNS, CHANNELS);
  SHARED_MEMORY(float, image);
  const T* x = static_cast<const T*>(p.right) + place.group * p.group_channels * (p.height * p.width);
  Tile::template fill<VECTOR>(image, x, place.channels, (blockDim.y - 1) * S + K, place.tile.row * S - PAD,
                               place.tile.column * S, p.height, p.width);
  __syncthreads();

  const int row = place.tile.row + threadIdx.y, column = place.tile.column + PIXELS * threadIdx.x;
  const int columns = p.out_width - column, plane = p.out_height * p.out_width, pixel = row * p.out_width + column;
  if (row >= p.out_height || columns <= 0) return;
  const T* gradient = static_cast<const T*>(p.left) + place.group * p.group_channels * plane + pixel;
  T* grad_weight = static_cast<T*>(p.result) + place.group * (K * K) * plane + pixel;
  const float* seen = image + threadIdx.y * S * Tile::ROW + threadIdx.x * PIXELS * S;
#pragma unroll 1
  for (int a = threadIdx.z; a < K; a += 2) {
    float sums[K][PIXELS] = {};
#pragma unroll 4
    for (int channel = 0; channel < place.channels; ++channel) {
      float own[PIXELS], window[WINDOW];
      load_four<VECTOR>(own, gradient + channel * plane, columns);
      load_window<4>(window, seen + a * Tile::ROW + channel * Tile::PITCH);
#pragma unroll
      for (int b = 0; b < K; ++b)
#pragma unroll
        for (int q = 0; q < PIXELS; ++q)
          sums[b][q] = fmaf(own[q], window[MARGIN - PAD + q * S + b], sums[b][q]);
    }
#pragma unroll
    for (int b = 0; b < K; ++b) store_four<VECTOR>(grad_weight + (a * K + b) * plane, sums[b], columns);
  }
}
