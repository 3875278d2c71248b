// Gradient of the filter of a depthwise convolution of stride 1 in 16 bits, on tensor cores, without atomics.
//
// For one row a of the filter, the products of columns of the gradient and of the image
//
//   S[p][q] = sum over rows i of gradient[i][p] * x[i + a - padding][q - padding - offset]
//
// matter by q - p alone: tap b of that row is the sum over the diagonal q = p + b + offset. One tile S of 16 columns x
// 8 * STEPS, kept by a warp, therefore serves all columns, rows and images, and its diagonals are added up once, at the
// end. What a block finds in its share of the images is one of `splits` parts, which sum_parts adds in order.
//
// Predicted bounds on an H200, clocks of an SM per pixel where memory takes 0.24: 7x7 on 56x56 0.28, 13x13 on
// 28x28 0.52, 31x31 on 56x56 1.84 (tensor cores, of whose products a band wastes more than half). Not measured.
#include "stacks.cuh"

struct BandedGradient {
  const void* gradient;  // [N, C, H, W]
  const void* x;         // [N, C, H, W]
  float* parts;          // [splits, C, K * K, and one more where there is a bias]
  int batch, channels, height, width, kernel, with_bias, access;
  int images, rows, held, row_tiles, column_tiles;  // of a unit: what a block holds at a time; see banded.cu
  int units, splits;
};

// Of a row in the stack: its number within the image, and how far its beginning is from that of the first, in bytes.
struct Line {
  int row, place;
};

// BANDS as for convolve_banded. TILES: 16-column steps of a unit.
template <typename T, int BANDS, int TILES>
__global__ void __launch_bounds__(BANDS == 3 ? 416 : 352, BANDS <= 5 ? 2 : 1)
    weight_parts_banded(const BandedGradient p) {
  constexpr int STEPS = BANDS + 1, SEEN = 2 * (TILES - 1) + STEPS;
  constexpr int STRIDE = 8 * (SEEN | 1), GRADIENT_STRIDE = 8 * (2 * TILES | 1), DIAGONAL = 8 * STEPS + 1;
  const int strips = (p.images * p.rows + 15) / 16, stacked = p.images * p.rows;
  SHARED_MEMORY(T, zeros);
  T* planes = zeros + STRIDE;
  T* gradient = planes + p.images * p.held * STRIDE;
  Line* lines = reinterpret_cast<Line*>(gradient + strips * 16 * GRADIENT_STRIDE);

  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, warps = blockDim.x / 32;
  const int parcels = (p.kernel + warps - 1) / warps, parcel = blockIdx.x % parcels;
  const int channel = blockIdx.x / parcels % p.channels, split = blockIdx.x / parcels / p.channels;
  const int a = parcel * warps + warp;
  const int padding = p.kernel / 2, left = 4 * (BANDS - 1), offset = left - padding;
  const int plane = p.height * p.width;
  const long long image_size = static_cast<long long>(p.channels) * plane;
  const bool sums_bias = p.with_bias && parcel == 0;

  for (int i = threadIdx.x; i < strips * 16; i += blockDim.x) {
    const int image = i / p.rows, row = i - image * p.rows;
    const int place = (image * p.held + row) * STRIDE * static_cast<int>(sizeof(T));
    lines[i] = i < stacked ? Line{row, place} : Line{-(1 << 30), 0};
  }

  // Matrices of the gradient: 8 rows x 8 columns of upper left, upper right, lower left, lower right.
  const int gradient_row = lane / 16 * 8 + lane % 8, gradient_column = lane / 8 % 2 * 8;
  const SharedAddress gradient_start = shared_address(gradient + gradient_row * GRADIENT_STRIDE + gradient_column);
  const SharedAddress no_row = shared_address(zeros + lane / 16 * 8);
  float sums[STEPS][4];
#pragma unroll
  for (int j = 0; j < STEPS; ++j)
#pragma unroll
    for (int e = 0; e < 4; ++e) sums[j][e] = 0;
  float bias = 0;

  for (int unit = split; unit < p.units; unit += p.splits) {
    const Share share = share_of(unit, p.column_tiles, p.row_tiles, 1);
    const int first_image = share.group * p.images, existing = min(p.images, p.batch - first_image);
    const int top = share.row_tile * p.rows, first_column = share.column_tile * 16 * TILES;
    const int first_held = max(0, top - padding);
    const long long start = first_image * image_size + static_cast<long long>(channel) * plane;
    __syncthreads();  // The unit before is no longer needed.
    clear(zeros, (1 + p.images * p.held) * STRIDE + strips * 16 * GRADIENT_STRIDE);
    __syncthreads();
    copy_stack(planes, {first_held, p.held, first_column - left, 8 * SEEN, STRIDE}, static_cast<const T*>(p.x) + start,
               image_size, existing, p.height, p.width, p.access);
    copy_stack(gradient, {top, p.rows, first_column, 16 * TILES, GRADIENT_STRIDE},
               static_cast<const T*>(p.gradient) + start, image_size, existing, p.height, p.width, p.access);
    commit_copies();
    wait_for_copies<0>();
    __syncthreads();

    if (sums_bias)
      for (int i = threadIdx.x; i < strips * 16 * 2 * TILES; i += blockDim.x) {
        float values[8];
        load_floats(values, gradient + i / (2 * TILES) * GRADIENT_STRIDE + i % (2 * TILES) * 8);
#pragma unroll
        for (int e = 0; e < 8; ++e) bias += values[e];
      }
    // The row of the image that the stack's row r sees is r + seen.
    const int seen = top + a - padding;
    if (a >= p.kernel || seen >= p.height || seen + p.rows <= 0) continue;
    const SharedAddress seen_start =
        shared_address(planes + lane / 16 * 8) + (seen - first_held) * STRIDE * static_cast<int>(sizeof(T));
#pragma unroll 1
    for (int strip = 0; strip < strips; ++strip) {
      const Line line = lines[strip * 16 + lane % 16];
      const bool exists = static_cast<unsigned>(line.row + seen) < static_cast<unsigned>(p.height);
      const SharedAddress from = exists ? seen_start + line.place : no_row;
      unsigned x[SEEN][2];
#pragma unroll
      for (int j = 0; j < SEEN; j += 2) {
        unsigned both[4];
        load_matrices_transposed(both, from + j * 16);
        x[j][0] = both[0], x[j][1] = both[1], x[j + 1][0] = both[2], x[j + 1][1] = both[3];
      }
#pragma unroll
      for (int t = 0; t < TILES; ++t) {
        unsigned columns[4];
        load_matrices_transposed(columns, gradient_start + (strip * 16 * GRADIENT_STRIDE + t * 16) * 2);
#pragma unroll
        for (int j = 0; j < STEPS; ++j) multiply_tiles<T>(sums[j], columns, x[2 * t + j]);
      }
    }
  }

  // Diagonals, eight rows of the tile at a time; lanes are taps.
  const int square = p.kernel * p.kernel;
  float* part = p.parts + (static_cast<long long>(split) * p.channels + channel) * (square + p.with_bias);
  __syncthreads();
  float* scratch = reinterpret_cast<float*>(zeros);
  float* tile = scratch + warp * 8 * DIAGONAL;
  constexpr int TAPS = BANDS / 2 * 16 / 32 + 1;
  float taps[TAPS];
#pragma unroll
  for (int i = 0; i < TAPS; ++i) taps[i] = 0;
#pragma unroll
  for (int h = 0; h < 2; ++h) {
#pragma unroll
    for (int j = 0; j < STEPS; ++j)
#pragma unroll
      for (int e = 0; e < 2; ++e) tile[lane / 4 * DIAGONAL + 8 * j + 2 * (lane % 4) + e] = sums[j][2 * h + e];
    __syncwarp();
#pragma unroll
    for (int i = 0; i < TAPS; ++i) {
      const int b = lane + 32 * i;
      if (b < p.kernel)
        for (int row = 0; row < 8; ++row) taps[i] += tile[row * DIAGONAL + row + 8 * h + b + offset];
    }
    __syncwarp();
  }
#pragma unroll
  for (int i = 0; i < TAPS; ++i)
    if (a < p.kernel && lane + 32 * i < p.kernel) part[a * p.kernel + lane + 32 * i] = taps[i];

  if (!sums_bias) return;
  bias = warp_sum(bias);
  __syncthreads();
  if (lane == 0) scratch[warp] = bias;
  __syncthreads();
  if (threadIdx.x == 0) {
    float total = 0;
    for (int i = 0; i < warps; ++i) total += scratch[i];
    part[square] = total;
  }
}
