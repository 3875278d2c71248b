// Involution on tensor cores: 16-bit values, 16 channels in a group, no dilation, stride 1 or 2.
//
// One warp makes one row of the result. For each kernel row, 16 channels x 8 pixels are a product of 16 channels x some
// columns of the image with a matrix that holds those pixels' taps along a band, and zeros beside it. A value that is
// not finite among those columns therefore spoils all eight pixels, those too that no tap connects to it.
#include "band.cuh"

struct Banded {
  const void* left;   // x; of the gradients, gradient
  const void* right;  // weight; of the gradient of weight, x
  void* result;
  int height, width, out_height, out_width;
  int tiles_down, tiles_across;  // of the result
};

// Steps of the loop over kernel rows whose taps are in shared memory at once. Single 16-bit values cannot be copied
// asynchronously, and are all fetched beforehand.
template <int K, int VECTOR>
DEVICE constexpr int stages() {
  return VECTOR == 1 ? K : 3;
}

// [N, C, Ho, Wo] of x [N, C, H, W] and weight [N, G, K, K, Ho, Wo]. Rows of weight are read in units of VECTOR, those
// of x in units of UNIT.
//
// Predicted bound on an H200: memory. At 56x56 and K = 7 an output takes 10 bytes, 0.61 cycles of a multiprocessor,
// about 42 thread-instructions, 0.33, and 54 bytes of shared memory, 0.42.
template <typename T, int K, int S, int TILES, int VECTOR, int UNIT>
__global__ void __launch_bounds__(TILES > 2 ? 224 : 448) banded_forward(const Banded p) {
  constexpr int WINDOW = ceil_div(7 * S + K, 8), CHUNKS = (TILES - 1) * S + WINDOW, STAGES = stages<K, VECTOR>();
  constexpr int PITCH = pitch_of(8 * CHUNKS), COLUMNS = 8 * TILES, TAP_PITCH = pitch_of(COLUMNS);
  const int warp = threadIdx.x / 32, rows = blockDim.x / 32, seen_rows = (rows - 1) * S + K;
  const TilePlace tile = tile_place(p.tiles_down, p.tiles_across, rows, COLUMNS);
  SHARED_MEMORY(T, image);
  T* taps = image + seen_rows * CHANNELS * PITCH + warp * STAGES * K * TAP_PITCH;

  const int plane = p.out_height * p.out_width, row = tile.row + warp;
  const bool exists = row < p.out_height;
  const T* weight = static_cast<const T*>(p.right) + tile.group * (K * K) * plane + row * p.out_width;
  const RowCopies<T, K, COLUMNS, VECTOR, TAP_PITCH> copies(weight, plane, tile.column, p.out_width);
  const auto stage = [&](int a) {
    copies.start(taps + a % STAGES * K * TAP_PITCH, a * K * plane, exists);
    commit_copies();
  };
#pragma unroll
  for (int a = 0; a < (STAGES < K ? STAGES - 1 : K); ++a) stage(a);
  const T* x = static_cast<const T*>(p.left) + tile.group * CHANNELS * (p.height * p.width);
  stage_image<CHUNKS, PITCH, K / 2, UNIT>(image, x, seen_rows, tile.row * S - K / 2, tile.column * S, p.height,
                                             p.width);
  __syncthreads();

  Band<WINDOW> band;
  band.template set<K, TAP_PITCH, false>(1, -S, 0);
  float sums[TILES][4] = {};
#pragma unroll
  for (int a = 0; a < K; ++a) {
    wait_for_copies<(STAGES < K ? STAGES - 2 : 0)>();
    __syncwarp();
    if (STAGES < K) {
      if (a + STAGES - 1 < K) stage(a + STAGES - 1);
      else commit_copies();
    }
    unsigned chunks[CHUNKS][2];
    load_chunks<CHUNKS, PITCH>(chunks, image + (warp * S + a) * CHANNELS * PITCH);
    const T* row_taps = taps + a % STAGES * K * TAP_PITCH;
#pragma unroll
    for (int t = 0; t < TILES; ++t) multiply_band<T, WINDOW>(sums[t], chunks + t * S, band, row_taps + 8 * t);
  }
  if (exists) {
    T* y = static_cast<T*>(p.result) + tile.group * CHANNELS * plane + row * p.out_width + tile.column;
    store_row<TILES, (VECTOR > 1)>(y, plane, p.out_width - tile.column, sums);
  }
}

// [N, C, H, W] of gradient [N, C, Ho, Wo] and weight. The same product with the band transposed: its elements are taps
// of the pixels that are summed over, so that row `a` of the kernel takes the taps of another row of the output.
//
// Predicted bound on an H200: memory, as the forward: the taps' margins at the ends of a row are zeros, not reads.
template <typename T, int K, int S, int TILES, int VECTOR, int UNIT, bool PAIRS>
__global__ void __launch_bounds__(TILES > 2 ? 224 : 448) banded_input_gradient(const Banded p) {
  constexpr int PAD = K / 2, SHIFT = PAD / S, CHUNKS = TILES / S + 1, STEPS = ceil_div(K, S);
  constexpr int STAGES = stages<STEPS, VECTOR>(), PITCH = pitch_of(8 * CHUNKS);
  constexpr int MARGIN = VECTOR == 8 ? 8 : 4, COLUMNS = ceil_div(8 * TILES / S, 8) * 8 + 2 * MARGIN;
  constexpr int TAP_PITCH = pitch_of(COLUMNS);
  const int warp = threadIdx.x / 32, rows = blockDim.x / 32, seen_rows = (rows - 1 + 2 * PAD) / S + S;
  const TilePlace tile = tile_place(p.tiles_down, p.tiles_across, rows, 8 * TILES);
  SHARED_MEMORY(T, image);
  T* taps = image + seen_rows * CHANNELS * PITCH + warp * STAGES * K * TAP_PITCH;

  const int plane = p.out_height * p.out_width, row = tile.row + warp, first_column = tile.column / S;
  // Steps take every S-th kernel row: those through which whole output rows, last first, see this row.
  const int first_a = (row + PAD) % S, last_seen = (row + PAD) / S;
  const int first_seen_row = (tile.row - PAD) >> (S - 1);
  const T* weight = static_cast<const T*>(p.right) + tile.group * (K * K) * plane;
  const RowCopies<T, K, COLUMNS, VECTOR, TAP_PITCH> copies(weight, plane, first_column - MARGIN, p.out_width);
  const auto stage = [&](int step) {
    const int a = first_a + step * S, seen = last_seen - step;
    const bool exists = a < K && seen >= 0 && seen < p.out_height;
    copies.start(taps + step % STAGES * K * TAP_PITCH, a * K * plane + seen * p.out_width, exists);
    commit_copies();
  };
#pragma unroll
  for (int step = 0; step < (STAGES < STEPS ? STAGES - 1 : STEPS); ++step) stage(step);
  const T* gradient = static_cast<const T*>(p.left) + tile.group * CHANNELS * plane;
  stage_image<CHUNKS, PITCH, SHIFT, UNIT>(image, gradient, seen_rows, first_seen_row, first_column, p.out_height,
                                             p.out_width);
  __syncthreads();

  // With stride 2, eight pixels see four or five output columns, and begin in the middle of a chunk every other time.
  Band<2> bands[S];
#pragma unroll
  for (int odd = 0; odd < S; ++odd) bands[odd].template set<K, TAP_PITCH, true>(-S, 1, 8 * odd + PAD + S * SHIFT);
  float sums[TILES][4] = {};
#pragma unroll
  for (int step = 0; step < STEPS; ++step) {
    wait_for_copies<(STAGES < STEPS ? STAGES - 2 : 0)>();
    __syncwarp();
    if (STAGES < STEPS) {
      if (step + STAGES - 1 < STEPS) stage(step + STAGES - 1);
      else commit_copies();
    }
    if (first_a + step * S >= K) continue;
    unsigned chunks[CHUNKS][2];
    load_chunks<CHUNKS, PITCH>(chunks, image + (last_seen - step - first_seen_row) * CHANNELS * PITCH);
    const T* row_taps = taps + step % STAGES * K * TAP_PITCH + MARGIN - SHIFT;
#pragma unroll
    for (int t = 0; t < TILES; ++t) {
      if (S == 2 && t % 2 == 0)
        multiply_band<T, 1>(sums[t], chunks + t / S, bands[0], row_taps + t / S * 8);
      else
        multiply_band<T, 2>(sums[t], chunks + t / S, bands[t % S], row_taps + t / S * 8);
    }
  }
  if (row < p.height) {
    const int image_plane = p.height * p.width;
    T* to = static_cast<T*>(p.result) + tile.group * CHANNELS * image_plane + row * p.width + tile.column;
    store_row<TILES, PAIRS>(to, image_plane, p.width - tile.column, sums);
  }
}

// [N, G, K, K, Ho, Wo] of gradient [N, C, Ho, Wo] and x [N, C, H, W]: columns of the image x 8 pixels are a product
// over the 16 channels, of which the taps of those pixels are a band.
//
// Predicted bound on an H200: memory. At 56x56 and K = 7 a tap's gradient takes 3.3 bytes, 0.20 cycles, and about 19
// thread-instructions, 0.15.
template <typename T, int K, int S, int TILES, int VECTOR, int UNIT>
__global__ void __launch_bounds__(TILES > 2 ? 224 : 448) banded_weight_gradient(const Banded p) {
  constexpr int PRODUCTS = ceil_div(7 * S + K, 16), CHUNKS = (TILES - 1) * S + 2 * PRODUCTS;
  constexpr int PITCH = pitch_of(8 * CHUNKS);
  constexpr int COLUMNS = 8 * TILES, OWN_PITCH = pitch_of(COLUMNS), UNITS = COLUMNS / VECTOR;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, rows = blockDim.x / 32, seen_rows = (rows - 1) * S + K;
  const TilePlace tile = tile_place(p.tiles_down, p.tiles_across, rows, COLUMNS);
  SHARED_MEMORY(T, image);
  T* own = image + seen_rows * CHANNELS * PITCH + warp * CHANNELS * OWN_PITCH;

  const int plane = p.out_height * p.out_width, row = tile.row + warp, columns = p.out_width - tile.column;
  const bool exists = row < p.out_height;
  const T* gradient = static_cast<const T*>(p.left) + tile.group * CHANNELS * plane + row * p.out_width;
  RowCopies<T, CHANNELS, COLUMNS, VECTOR, OWN_PITCH>(gradient, plane, tile.column, p.out_width).start(own, 0, exists);
  commit_copies();
  const T* x = static_cast<const T*>(p.right) + tile.group * CHANNELS * (p.height * p.width);
  stage_image<CHUNKS, PITCH, K / 2, UNIT>(image, x, seen_rows, tile.row * S - K / 2, tile.column * S, p.height,
                                             p.width);
  wait_for_copies<0>();
  __syncthreads();

  // Channels are summed over, so both factors are transposed on the way from [channel][column].
  unsigned pixels[TILES][2];
  const SharedAddress own_column = shared_address(own + lane % 16 * OWN_PITCH);
#pragma unroll
  for (int t = 0; t < TILES; ++t) load_matrices_transposed(pixels[t], own_column + t * 16);
  __syncwarp();

  // From here on the warp's own rows hold the taps of its pixels, of one kernel row: [tap][pixel].
  const int pixel = 2 * (lane % 4), first_tap = lane / 4 - S * pixel;
  T* taps = own + first_tap * OWN_PITCH + pixel;
  T* grad_weight = static_cast<T*>(p.result) + tile.group * (K * K) * plane + row * p.out_width + tile.column;
  const int channel = lane % 8 + lane / 16 * 8;
  SharedAddress seen = shared_address(image + (warp * S * CHANNELS + channel) * PITCH + lane / 8 % 2 * 8);
#pragma unroll 1
  for (int a = 0; a < K; ++a) {
#pragma unroll
    for (int t = 0; t < TILES; ++t)
#pragma unroll
      for (int i = 0; i < PRODUCTS; ++i) {
        unsigned columns_seen[4];
        load_matrices_transposed(columns_seen, seen + (t * S + 2 * i) * 16);
        float products[4] = {};
        multiply_tiles<T>(products, columns_seen, pixels[t]);
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          const int further = 16 * i + 8 * (e / 2) - S * (e % 2);
          if (static_cast<unsigned>(first_tap + further) < static_cast<unsigned>(K))
            taps[further * OWN_PITCH + 8 * t + e % 2] = from_float<T>(products[e]);
        }
      }
    seen += CHANNELS * PITCH * 2;
    __syncwarp();
#pragma unroll
    for (int i = lane; i < K * UNITS; i += 32) {
      const int b = i / UNITS, along = VECTOR * (i - b * UNITS);
      if (exists && along < columns)
        store_vector<T, VECTOR>(grad_weight + b * plane + along, load_vector<T, VECTOR>(own + b * OWN_PITCH + along));
    }
    grad_weight += K * plane;
    __syncwarp();
  }
}
