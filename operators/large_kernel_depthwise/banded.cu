// Depthwise convolution of stride 1 in 16 bits, on tensor cores; with the filter turned, the input's gradient.
//
// One row a of a filter makes rows of outputs out of rows of the image as a matrix product:
//
//   Y[16 rows x 8 columns] += X[those rows moved by a - padding, 8 * BANDS columns] * W[8 * BANDS x 8],
//   W[k][n] = weight[a][k - n - offset], zero where there is no such tap: a band.
//
// Rows of X may be any 16 rows, so images of one channel are stacked and 7 or 14 rows waste nothing. Columns begin at
// multiples of 8 whatever the padding, as 16-byte accesses need: the band's offset makes up for it. The filter is kept
// twice, moved by one value against each other, so that every pair of neighbours is one aligned word.
//
// Predicted bounds on an H200, clocks of an SM per output where memory takes 0.24: 7x7 on 56x56 0.25 (memory, and issue
// close behind), 13x13 on 28x28 0.46 (issue, tensor cores), 31x31 on 56x56 1.34 (tensor cores). Not measured.
#include "stacks.cuh"

struct Banded {
  const void* x;       // [N, C, H, W]
  const void* weight;  // [C, 1, K, K]
  const void* bias;    // [C] or null
  void* y;             // [N, C, H, W]
  int batch, channels, height, width, kernel, turned, access;
  // A block computes `rows` rows of one channel in `images` images, 16 of these a warp, and holds `held` rows of each.
  int images, rows, held, row_tiles, column_tiles;
};

// Lays out the filter's rows, each twice with zeros on both sides: tap b at 8 + offset + b, and one place before that.
template <typename T, int SPAN>
DEVICE void lay_out_filter(T* to, const T* weight, int kernel, int offset, bool turned) {
  const int square = kernel * kernel;
  for (int i = threadIdx.x; i < kernel * 2 * SPAN; i += blockDim.x) {
    const int row = i / (2 * SPAN), copy = i / SPAN % 2, tap = i % SPAN + copy - 8 - offset;
    T value = from_float<T>(0.f);
    if (tap >= 0 && tap < kernel) {
      const int index = row * kernel + tap;
      value = weight[turned ? square - 1 - index : index];
    }
    to[i] = value;
  }
}

// Every other vector of a row of outputs, from shared memory to global; the two halves of a warp share 16 rows.
template <typename T, int BYTES, int COLUMNS>
DEVICE void store_row(T* y, const T* row, int half, int columns) {
  constexpr int COUNT = BYTES / static_cast<int>(sizeof(T));
#pragma unroll
  for (int column = half * COUNT; column < COLUMNS; column += 2 * COUNT)
    if (column < columns) store_vector<T, COUNT>(y + column, load_vector<T, COUNT>(row + column));
}

// BANDS: 8-column steps that 8 columns of outputs see, 2 * ceil(padding / 8) + 1. TILES: 8-column steps of a block.
template <typename T, int BANDS, int TILES>
__global__ void __launch_bounds__(256, BANDS == 3 ? 4 : 3) convolve_banded(const Banded p) {
  constexpr int STEPS = TILES + BANDS - 1, SPAN = 8 * BANDS + 8;
  // Odd multiples of 16 bytes: eight rows are then in eight different groups of banks.
  constexpr int STRIDE = 8 * (STEPS | 1), OUTPUT_STRIDE = 8 * (TILES | 1);
  SHARED_MEMORY(T, zeros);
  T* planes = zeros + STRIDE;
  T* filter = planes + p.images * p.held * STRIDE;
  T* outputs = filter + p.kernel * 2 * SPAN;

  const Share share = share_of(blockIdx.x, p.column_tiles, p.row_tiles, p.channels);
  const int padding = p.kernel / 2, left = 4 * (BANDS - 1), offset = left - padding;
  const int first_image = share.group * p.images, existing = min(p.images, p.batch - first_image);
  const int top = share.row_tile * p.rows, rows = min(p.rows, p.height - top);
  const int first_column = share.column_tile * 8 * TILES, first_held = max(0, top - padding);
  const long long image_size = static_cast<long long>(p.channels) * (p.height * p.width);
  const long long start = first_image * image_size + static_cast<long long>(share.channel) * (p.height * p.width);
  const Region region = {first_held, p.held, first_column - left, 8 * STEPS, STRIDE};
  clear(zeros, (1 + p.images * p.held) * STRIDE);
  __syncthreads();
  copy_stack(planes, region, static_cast<const T*>(p.x) + start, image_size, existing, p.height, p.width, p.access);
  commit_copies();
  const T* weight = static_cast<const T*>(p.weight) + static_cast<long long>(share.channel) * (p.kernel * p.kernel);
  lay_out_filter<T, SPAN>(filter, weight, p.kernel, offset, p.turned);
  const float bias = p.bias ? to_float(static_cast<const T*>(p.bias)[share.channel]) : 0.f;
  wait_for_copies<0>();
  __syncthreads();

  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, half = lane / 16;
  // Of the band, lane l holds the pair at rows k and k + 1, k = 2 * (l % 4), of column n = l / 4.
  const int pair = 8 + 2 * (lane % 4) - lane / 4, copy = pair % 2;
  const unsigned* band = reinterpret_cast<const unsigned*>(filter + copy * SPAN + pair - copy);
  const SharedAddress no_row = shared_address(zeros + half * 8);
  T* output = outputs + warp * (16 * OUTPUT_STRIDE);
  const int first_tap = max(0, padding - (top + rows - 1)), last_tap = min(p.kernel, padding + p.height - top);

  const int number = warp * 16 + lane % 16, image = number / p.rows, row = number - image * p.rows;
  const bool is_output = image < existing && row < rows;
  // The row of the image under tap row `a` is seen + a; far outside where there is no output.
  const int seen = is_output ? top + row - padding : -(1 << 30);
  const int held = (image * p.held + (is_output ? seen - first_held : 0) + first_tap) * STRIDE;
  SharedAddress address = shared_address(planes + half * 8) + held * static_cast<int>(sizeof(T));
  float sums[TILES][4];
#pragma unroll
  for (int t = 0; t < TILES; ++t)
#pragma unroll
    for (int e = 0; e < 4; ++e) sums[t][e] = bias;
#pragma unroll 1
  for (int a = first_tap; a < last_tap; ++a, address += STRIDE * sizeof(T)) {
    unsigned w[BANDS][1];
#pragma unroll
    for (int j = 0; j < BANDS; ++j) w[j][0] = band[a * SPAN + 4 * j];
    const bool exists = static_cast<unsigned>(seen + a) < static_cast<unsigned>(p.height);
    const SharedAddress from = exists ? address : no_row;
    unsigned x[STEPS][2];
#pragma unroll
    for (int j = 0; j + 1 < STEPS; j += 2) {
      unsigned both[4];
      load_matrices(both, from + j * 16);
      x[j][0] = both[0], x[j][1] = both[1], x[j + 1][0] = both[2], x[j + 1][1] = both[3];
    }
    if constexpr (STEPS % 2) load_matrices(x[STEPS - 1], from + (STEPS - 1) * 16);
#pragma unroll
    for (int t = 0; t < TILES; ++t)
#pragma unroll
      for (int j = 0; j < BANDS; ++j) multiply_tiles<T>(sums[t], x[t + j], w[j]);
  }

  // Through shared memory, so that a row leaves in wide stores.
#pragma unroll
  for (int t = 0; t < TILES; ++t)
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      T* place = output + (lane / 4 + 8 * h) * OUTPUT_STRIDE + 8 * t + 2 * (lane % 4);
      store_floats<T, 2>(place, {sums[t][2 * h], sums[t][2 * h + 1]});
    }
  __syncwarp();
  if (is_output) {
    T* y = static_cast<T*>(p.y) + start + image * image_size + (top + row) * p.width + first_column;
    const T* from = output + lane % 16 * OUTPUT_STRIDE;
    const int columns = p.width - first_column;
    if (p.access == 16)
      store_row<T, 16, 8 * TILES>(y, from, half, columns);
    else if (p.access == 8)
      store_row<T, 8, 8 * TILES>(y, from, half, columns);
    else if (p.access == 4)
      store_row<T, 4, 8 * TILES>(y, from, half, columns);
    else
      store_row<T, 2, 8 * TILES>(y, from, half, columns);
  }
}
