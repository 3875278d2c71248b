// Depthwise convolution of stride 1 in float32 with more than seven taps per side; with the filter turned, the input's
// gradient.
//
// A thread computes 4 rows of 8 outputs in registers: each row of the image that they see passes by once, eight taps at
// a time, and meets up to four rows of the filter. The filter is read from shared memory, the same words by all
// threads.
//
// Predicted bounds on an H200, clocks of an SM per output where memory takes 0.49: 13x13 on 28x28 2.0, 31x31 on 56x56
// 9.1 (issue; of five instructions of the main loop four are multiply-adds). Not measured.
#include "stacks.cuh"

struct Blocked {
  const float* x;       // [N, C, H, W]
  const float* weight;  // [C, 1, K, K]
  const float* bias;    // [C] or null
  float* y;             // [N, C, H, W]
  int batch, channels, height, width, kernel, turned, access;
  // A block computes `rows` rows and `columns` columns of one channel in `images` images; it holds `held` rows of each,
  // `stride` values apart.
  int images, rows, held, row_tiles, column_tiles, columns, stride;
};

constexpr int SIDE = 4, WIDE = 8;  // rows and columns of a thread's outputs

// A row of the outputs by taps FROM to TO of eight, x being what the thread's columns see.
template <int FROM, int TO>
DEVICE void multiply_taps(float (&sums)[WIDE], const float (&x)[WIDE + 8], const float (&taps)[8]) {
#pragma unroll
  for (int tap = FROM; tap < TO; ++tap)
#pragma unroll
    for (int j = 0; j < WIDE; ++j) sums[j] = fmaf(x[j + tap], taps[tap], sums[j]);
}

// All rows of the outputs by the rows `a`, a - 1, ... of the filter, where there are such rows.
template <int FROM, int TO>
DEVICE void multiply_rows(float (&sums)[SIDE][WIDE], const float (&x)[WIDE + 8], const float* filter, int stride, int a,
                          int kernel) {
#pragma unroll
  for (int i = 0; i < SIDE; ++i)
    if (static_cast<unsigned>(a - i) < static_cast<unsigned>(kernel)) {
      float taps[8];
      load_floats(taps, filter - i * stride);
      multiply_taps<FROM, TO>(sums[i], x, taps);
    }
}

// Values 4 * FIRST to 4 * LAST of those that eight taps see.
template <int FIRST, int LAST, int COUNT>
DEVICE void load_quads(float (&x)[COUNT], const float* from) {
#pragma unroll
  for (int quad = FIRST; quad < LAST; ++quad) {
    float values[4];
    load_floats(values, from + 4 * quad);
#pragma unroll
    for (int i = 0; i < 4; ++i) x[4 * quad + i] = values[i];
  }
}

// TAIL: kernel % 8, which fixes how far rows must be shifted for aligned loads.
template <int TAIL>
__global__ void __launch_bounds__(256, 2) convolve_blocked(const Blocked p) {
  constexpr int SHIFT = (4 - TAIL / 2 % 4) % 4, END = TAIL + SHIFT;
  constexpr int QUADS = WIDE / 4 + 2, END_QUADS = (END + WIDE - 1 + 3) / 4;
  SHARED_MEMORY(float, zeros);
  float* planes = zeros + p.stride;
  float* filter = planes + p.images * p.held * p.stride;

  const Share share = share_of(blockIdx.x, p.column_tiles, p.row_tiles, p.channels);
  const int padding = p.kernel / 2, plane = p.height * p.width, filter_stride = (p.kernel + SHIFT + 7) / 8 * 8;
  const int first_image = share.group * p.images, existing = min(p.images, p.batch - first_image);
  const int top = share.row_tile * p.rows, rows = min(p.rows, p.height - top);
  const int first_column = share.column_tile * p.columns, columns = min(p.columns, p.width - first_column);
  const int first_held = max(0, top - padding);
  const long long image_size = static_cast<long long>(p.channels) * plane;
  const long long start = first_image * image_size + static_cast<long long>(share.channel) * plane;
  clear(zeros, (1 + p.images * p.held) * p.stride);
  __syncthreads();
  copy_stack(planes, {first_held, p.held, first_column - padding - SHIFT, p.stride, p.stride}, p.x + start, image_size,
             existing, p.height, p.width, p.access);
  commit_copies();
  const int square = p.kernel * p.kernel;
  const float* weight = p.weight + static_cast<long long>(share.channel) * square;
  for (int i = threadIdx.x; i < p.kernel * filter_stride; i += blockDim.x) {
    const int row = i / filter_stride, tap = i - row * filter_stride - SHIFT, index = row * p.kernel + tap;
    filter[i] = tap >= 0 && tap < p.kernel ? weight[p.turned ? square - 1 - index : index] : 0.f;
  }
  const float bias = p.bias ? p.bias[share.channel] : 0.f;
  wait_for_copies<0>();
  __syncthreads();

  const int across = (columns + WIDE - 1) / WIDE, down = (rows + SIDE - 1) / SIDE;
  const int first = max(0, padding - (top + rows - 1)), last = min(p.kernel + SIDE - 1, padding + p.height - top);
  for (int block = threadIdx.x; block < existing * down * across; block += blockDim.x) {
    const int image = block / (down * across), rest = block - image * (down * across);
    const int row = rest / across * SIDE, column = (rest - rest / across * across) * WIDE;
    float sums[SIDE][WIDE];
#pragma unroll
    for (int i = 0; i < SIDE; ++i)
#pragma unroll
      for (int j = 0; j < WIDE; ++j) sums[i][j] = bias;
    // The row of the image under row `a` of the filter, for the first row of outputs.
    const auto row_under = [&](int a) {
      const int seen = top + row - padding + a;
      const bool exists = static_cast<unsigned>(seen) < static_cast<unsigned>(p.height);
      return exists ? planes + (image * p.held + seen - first_held) * p.stride + column : zeros;
    };
    float x[WIDE + 8];
#pragma unroll 1
    for (int a = first; a < last; ++a) {
      const float* from = row_under(a);
      const float* taps = filter + a * filter_stride;
      load_quads<0, QUADS>(x, from);
      multiply_rows<SHIFT, 8>(sums, x, taps, filter_stride, a, p.kernel);
      for (int left = p.kernel - 16 - TAIL;; left -= 8) {
#pragma unroll
        for (int i = 0; i < WIDE; ++i) x[i] = x[8 + i];
        from += 8, taps += 8;
        if (left < 0) break;
        load_quads<WIDE / 4, QUADS>(x, from);
        multiply_rows<0, 8>(sums, x, taps, filter_stride, a, p.kernel);
      }
      load_quads<WIDE / 4, END_QUADS>(x, from);
      multiply_rows<0, END>(sums, x, taps, filter_stride, a, p.kernel);
    }
    float* y = p.y + start + image * image_size + (top + row) * p.width + first_column + column;
#pragma unroll
    for (int i = 0; i < SIDE; ++i, y += p.width) {
      if (row + i >= rows) break;
#pragma unroll
      for (int quad = 0; quad < WIDE; quad += 4) {
        if (column + quad >= columns) break;
        if (p.access == 16) {
          store_floats(y + quad, {sums[i][quad], sums[i][quad + 1], sums[i][quad + 2], sums[i][quad + 3]});
        } else {
#pragma unroll
          for (int j = quad; j < quad + 4; ++j)
            if (column + j < columns) y[j] = sums[i][j];
        }
      }
    }
  }
}
