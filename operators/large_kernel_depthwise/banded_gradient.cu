// Gradient of the filter of a depthwise convolution of stride 1 in 16 bits, on tensor cores, without atomics.
//
// For one row a of the filter, the products of columns of the gradient and of the image
//
//   S[p][q] = sum over rows i of gradient[i][p] * x[i + a - padding][q - padding - offset]
//
// matter by q - p alone: tap b of that row is the sum over the diagonal q = p + b + offset. One tile S of 16 columns x
// 8 * STEPS therefore serves all columns, rows and images, and its diagonals are added up once, at the end. A warp has
// the tiles of a few rows of the filter. What a block finds in its share of the images is one of `splits` parts, which
// sum_parts adds in order. Columns outside the image are not multiplied where a block has whole rows.
//
// Predicted bounds on an H200, clocks of an SM per pixel where memory takes 0.24: 7x7 on 56x56 0.24 (memory; tensor
// cores 0.23, issue 0.18), on 14x14 0.25 (memory, issue), 13x13 on 28x28 0.42 (tensor cores), on 7x7 1.0 (issue), 27x27
// on 14x14 0.59 (issue, tensor cores), 31x31 on 56x56 1.43 (tensor cores, of whose products a band wastes a quarter). Not
// measured.
#include "bands.cuh"

struct BandedGradient {
  const void* gradient;  // [N, C, H, W]
  const void* x;         // [N, C, H, W]
  float* parts;          // [splits, C, K * K, and one more where there is a bias]
  int batch, channels, height, width, kernel, with_bias, access;
  int images, rows, held, row_tiles, column_tiles;  // of a unit: what a block holds at a time; see banded.cu
  int units, splits;
};

// Where a thread, one of two that share a row, copies from and to.
template <typename T>
struct Lane {
  const T* x;
  const T* gradient;
  T* planes;
  T* gradients;
  int image, row, half;
};

// Begins to copy a unit: rows [first_row, end) of the image, from which the gradient's begin at `top`. So many images,
// `together`, at a time as there are threads for; those that do not exist become zeros.
template <typename T, int BYTES, int SEEN, int COLUMNS, int STRIDE, int GRADIENT_STRIDE>
DEVICE void copy_unit(const BandedGradient& p, const Lane<T>& lane, long long image_size, int pitch, int existing,
                      int first_row, int end, int top, int first_held, int first_column) {
  const int lines = blockDim.x / 2, together = max(1, lines / p.rows), vector = lane.half * (BYTES / 2);
  if (lane.image >= together) return;
  const int begin = max(0, first_held), seen = p.width - begin - vector, room = SEEN - (begin - first_held) - vector;
  const int columns = p.width - first_column - vector;
  for (int image = lane.image; image < p.images; image += together) {
    const bool exists[1] = {image < existing};
    for (int line = first_row + lane.row; line < end; line += lines) {
      const long long place = image * image_size + line * p.width + vector;
      T* to = lane.planes + (image * pitch + line) * STRIDE + begin - first_held + vector;
      const bool inside = line >= top && line < top + p.rows;
      T* row = lane.gradients + (image * p.rows + line - top) * GRADIENT_STRIDE + vector;
      if constexpr (BYTES == 2) {
        T* const both[2] = {to, row};
        const T* const from[2] = {lane.x + place + begin, lane.gradient + place + first_column};
        const int ends[2] = {min(seen, room), inside ? min(columns, COLUMNS - vector) : 0};
        copy_values<T, SEEN>(both, from, ends, {exists[0], exists[0]});
      } else {
        const T* from = lane.gradient + place + first_column;
        copy_rows<T, BYTES, SEEN>(to, lane.x + place + begin, {}, exists, seen, room);
        if (inside) copy_rows<T, BYTES, COLUMNS>(row, from, {}, exists, columns, COLUMNS - vector);
      }
    }
  }
}

// BANDS as for convolve_banded. TILES: 16-column steps of a unit. ALL: that is the image's whole width.
template <typename T, int BANDS, int TILES, bool ALL>
__global__ void __launch_bounds__(256, BANDS <= 5 ? 2 : 1)
    weight_parts_banded(const BandedGradient p) {
  // Steps of 8 columns: of four tiles of the whole width the last is half a one.
  constexpr bool HALF = ALL && TILES == 4;
  constexpr int COLUMNS = 2 * TILES - HALF;
  constexpr int STEPS = BANDS + 1, LEAD = ALL ? BANDS / 2 : 0, SEEN = ALL ? COLUMNS : 2 * (TILES - 1) + STEPS;
  constexpr int STRIDE = 8 * (SEEN | 1), GRADIENT_STRIDE = 8 * (COLUMNS | 1);
  // Rows of the filter that a warp has: the narrower an image, the less one costs beside what comes with any.
  constexpr int ROWS = TILES == 1 ? 4 : TILES == 2 && BANDS == 3 ? 2 : 1;
  // Steps of the tiles that are not left zero.
  constexpr int FIRST = ALL && TILES == 1 ? LEAD : 0, USED = ALL && TILES == 1 ? 2 : STEPS, DIAGONAL = 8 * USED + 1;
  const int strips = (p.images * p.rows + 15) / 16, length = p.held * STRIDE + strips * 16 * GRADIENT_STRIDE;
  SHARED_MEMORY(int, places);  // of the stack's rows, in bytes from the first
  T* buffers = reinterpret_cast<T*>(places + strips * 16);

  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, warps = blockDim.x / 32;
  const int parcels = (p.kernel + warps * ROWS - 1) / (warps * ROWS), parcel = blockIdx.x % parcels;
  const int channel = blockIdx.x / parcels % p.channels, split = blockIdx.x / parcels / p.channels;
  const int a = (parcel * warps + warp) * ROWS;
  const int padding = p.kernel / 2, left = 8 * (BANDS / 2), offset = left - padding;
  // Rows from an image to the next: images share the zeros between them, tiles have pixels above and below.
  const int pitch = p.rows + (p.row_tiles > 1 ? 2 : 1) * padding;
  const long long image_size = static_cast<long long>(p.channels) * (p.height * p.width);
  const long long start = static_cast<long long>(channel) * (p.height * p.width);
  const bool sums_bias = p.with_bias && parcel == 0, is_whole = p.row_tiles * p.column_tiles == 1;
  clear(buffers, (split + p.splits < p.units ? 2 : 1) * length);
  for (int i = threadIdx.x; i < strips * 16; i += blockDim.x) {
    const int image = i / p.rows, row = i - image * p.rows;
    places[i] = image < p.images ? (image * pitch + row) * STRIDE * static_cast<int>(sizeof(T)) : 0;
  }
  const int line = threadIdx.x / 2, lines = blockDim.x / 2;
  const int first = p.images > 1 && lines >= p.rows ? line / p.rows : 0;

  // Matrices of the gradient: 8 rows x 8 columns of upper left, upper right, lower left, lower right.
  const int gradient_row = lane / 16 * 8 + lane % 8, gradient_column = lane / 8 % 2 * 8;
  const SharedAddress gradient_start =
      shared_address(buffers + p.held * STRIDE + gradient_row * GRADIENT_STRIDE + gradient_column);
  // Of half a tile: 8 rows x 8 columns of the left, upper and lower.
  const int last_tile = ((lane % 16 - gradient_row) * GRADIENT_STRIDE - gradient_column) * 2 + (TILES - 1) * 32;
  const SharedAddress seen_start = shared_address(buffers + a * STRIDE + lane / 16 * 8);
  float sums[ROWS][STEPS][4];
#pragma unroll
  for (int r = 0; r < ROWS; ++r)
#pragma unroll
    for (int j = 0; j < STEPS; ++j)
#pragma unroll
      for (int e = 0; e < 4; ++e) sums[r][j][e] = 0;
  float bias = 0;
  int buffer = 0;
#pragma unroll 1
  for (int next = split;; next += p.splits) {
    wait_for_copies<0>();
    __syncthreads();  // The unit is there, and the one before no longer needed.
    if (next < p.units) {
      if (!is_whole && next >= 2 * p.splits) {
        // Units of different places in an image have their zeros in different places.
        clear(buffers + buffer, length);
        __syncthreads();
      }
      const Share share = is_whole ? Share{0, 0, 0, next} : share_of(next, p.column_tiles, p.row_tiles, 1);
      const int top = share.row_tile * p.rows, first_column = share.column_tile * 16 * TILES;
      const int first_row = max(0, top - padding), end = min(p.height, top + p.rows + padding);
      const long long from = share.group * p.images * image_size + start;
      T* planes = buffers + buffer + (padding - top) * STRIDE;
      const Lane<T> own = {static_cast<const T*>(p.x) + from,
                           static_cast<const T*>(p.gradient) + from,
                           planes,
                           buffers + buffer + p.held * STRIDE,
                           first,
                           line - first * p.rows,
                           static_cast<int>(threadIdx.x % 2)};
      const int existing = p.batch - share.group * p.images, held = first_column - (ALL ? 0 : left);
      const auto copy = [&](auto bytes) {
        copy_unit<T, decltype(bytes)::BYTES, 8 * SEEN, 8 * COLUMNS, STRIDE, GRADIENT_STRIDE>(
            p, own, image_size, pitch, existing, first_row, end, top, held, first_column);
      };
      if (p.access == 16)
        copy(Access<16>{});
      else if (p.access == 8)
        copy(Access<8>{});
      else if (p.access == 4)
        copy(Access<4>{});
      else
        copy(Access<2>{});
    }
    commit_copies();
    buffer = length - buffer;
    if (next == split) continue;

    if (sums_bias) {
      const T* gradient = buffers + buffer + p.held * STRIDE;
      for (int i = threadIdx.x; i < strips * 16 * COLUMNS; i += blockDim.x) {
        float values[8];
        load_floats(values, gradient + i / COLUMNS * GRADIENT_STRIDE + i % COLUMNS * 8);
#pragma unroll
        for (int e = 0; e < 8; ++e) bias += values[e];
      }
    }
    if (a < p.kernel) {
      SharedAddress from_gradient = gradient_start + buffer * static_cast<int>(sizeof(T));
      const SharedAddress from = seen_start + buffer * static_cast<int>(sizeof(T));
#pragma unroll 1
      for (int strip = 0; strip < strips; ++strip) {
        const SharedAddress row = from + places[strip * 16 + lane % 16];
        unsigned columns[ROWS > 1 ? TILES : 1][4];
        if constexpr (ROWS > 1)
#pragma unroll
          for (int t = 0; t < TILES; ++t) load_matrices_transposed(columns[t], from_gradient + t * 32);
#pragma unroll
        for (int r = 0; r < ROWS; ++r) {
          unsigned x[(SEEN + 1) / 2][4];
#pragma unroll
          for (int s = 0; s < SEEN / 2; ++s)
            load_matrices_transposed(x[s], row + (r * STRIDE + s * 16) * static_cast<int>(sizeof(T)));
          if constexpr (SEEN % 2) {
            unsigned last[2];
            load_matrices_transposed(last, row + (r * STRIDE + SEEN / 2 * 16) * static_cast<int>(sizeof(T)));
            x[SEEN / 2][0] = last[0], x[SEEN / 2][1] = last[1];
          }
#pragma unroll
          for (int t = 0; t < TILES; ++t) {
            if (HALF && t == TILES - 1) {
              unsigned some[2];
              load_matrices_transposed(some, from_gradient + last_tile);
              columns[0][0] = some[0], columns[0][1] = 0, columns[0][2] = some[1], columns[0][3] = 0;
            } else if (ROWS == 1) {
              load_matrices_transposed(columns[0], from_gradient + t * 32);
            }
#pragma unroll
            for (int j = 0; j < STEPS; ++j) {
              const int s = 2 * t + j - LEAD;
              if (s < 0 || s >= SEEN) continue;
              const unsigned step[2] = {x[s / 2][s % 2 * 2], x[s / 2][s % 2 * 2 + 1]};
              multiply_tiles<T>(sums[r][j], columns[ROWS > 1 ? t : 0], step);
            }
          }
        }
        from_gradient += 16 * GRADIENT_STRIDE * static_cast<int>(sizeof(T));
      }
    }
    if (next >= p.units) break;
  }

  // Diagonals; lanes are taps. A tile that has all columns of the image may be narrower than the filter.
  const int square = p.kernel * p.kernel;
  float* part = p.parts + (static_cast<long long>(split) * p.channels + channel) * (square + p.with_bias);
  __syncthreads();
  float* scratch = reinterpret_cast<float*>(places);
  float* tiles = scratch + warp * ROWS * 16 * DIAGONAL;
#pragma unroll
  for (int r = 0; r < ROWS; ++r)
#pragma unroll
    for (int j = 0; j < USED; ++j)
#pragma unroll
      for (int e = 0; e < 4; ++e)
        tiles[(r * 16 + lane / 4 + 8 * (e / 2)) * DIAGONAL + 8 * j + 2 * (lane % 4) + e % 2] = sums[r][FIRST + j][e];
  __syncwarp();
#pragma unroll 1
  for (int i = lane; i < min(ROWS, p.kernel - a) * p.kernel; i += 32) {
    const int r = i / p.kernel, first_column = i - r * p.kernel + offset - 8 * FIRST;
    const float* diagonal = tiles + r * 16 * DIAGONAL + first_column;
    const int end = min(16, 8 * USED - first_column);
    float sum = 0;
#pragma unroll 4
    for (int row = max(0, -first_column); row < end; ++row) sum += diagonal[row * (DIAGONAL + 1)];
    part[a * p.kernel + i] = sum;
  }

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
