// Depthwise convolution of stride 1 in float32 with at most seven taps per side; with the filter turned, the input's
// gradient.
//
// The filter stays in a thread's registers. A thread computes 7 rows of 4 outputs: each row of the image that they see
// is loaded once, as three vectors, and meets all rows of the filter that it is under.
//
// Predicted bounds on an H200, clocks of an SM per output where memory takes 0.49: 7x7 on 56x56 0.49 (memory; issue
// 0.45, of it 0.38 multiply-adds), on 28x28 0.49 (memory; issue 0.47), on 14x14 0.55 (issue). Not measured.
#include "strips.cuh"

struct Short {
  const float* x;       // [N, C, H, W]
  const float* weight;  // [C, 1, K, K]
  const float* bias;    // [C] or null
  float* y;             // [N, C, H, W]
  Units units;
  int turned;
};

// Stores the rows of a thread's outputs that lie in the image, COUNT values at a time.
template <int COUNT>
DEVICE void store_strip(float* y, const float (&sums)[STRIP][4], int width, int rows, int columns) {
#pragma unroll
  for (int i = 0; i < STRIP; ++i, y += width) {
    if (i >= rows) return;
#pragma unroll
    for (int j = 0; j < 4; j += COUNT) {
      float values[COUNT];
#pragma unroll
      for (int e = 0; e < COUNT; ++e) values[e] = sums[i][j + e];
      if (j < columns) store_floats<float, COUNT>(y + j, values);
    }
  }
}

// COUNT: values of an access, of which a row has a whole number.
template <int K, int COUNT>
__global__ void __launch_bounds__(256, 2) convolve_short(const Short p) {
  constexpr int PADDING = K / 2, SQUARE = K * K, FILTER = (SQUARE + 3) / 4 * 4;
  SHARED_MEMORY(float, filter);
  float* buffers = filter + FILTER;

  const Units& u = p.units;
  const int channel = blockIdx.x % u.channels, split = blockIdx.x / u.channels, plane = u.height * u.width;
  const long long start = static_cast<long long>(channel) * plane;
  const long long image_size = static_cast<long long>(u.channels) * plane;
  const Place place = place_of(u);
  const float* weight = p.weight + channel * SQUARE;
#pragma unroll 1
  for (int i = threadIdx.x; i < SQUARE; i += blockDim.x) filter[i] = weight[p.turned ? SQUARE - 1 - i : i];
  clear(buffers, split + u.splits < u.units ? 2 * u.buffer : u.buffer);
  const float bias = p.bias ? p.bias[channel] : 0.f;
  const int under = (place.image * (u.rows + PADDING) + place.row) * u.stride + place.column;
  __syncthreads();
  float taps[FILTER];
  load_floats(taps, filter);

  Unit unit;
  int buffer = 0;
#pragma unroll 1
  for (int next = split;; next += u.splits) {
    const Unit now = unit;
    wait_for_copies<0>();
    __syncthreads();  // The unit is there, and the one before no longer needed.
    unit = unit_of(u, next);
    if (next < u.units) copy_unit<PADDING, COUNT>(buffers + buffer, p.x + start, u, place, unit);
    buffer = u.buffer - buffer;
    if (next == split) continue;
    const int image = now.image + place.image, row = now.row + place.row, column = now.column + place.column;
    if (place.image < u.images && image < u.batch) {
      const float* from = buffers + buffer + under;
      float sums[STRIP][4];
#pragma unroll
      for (int i = 0; i < STRIP; ++i)
#pragma unroll
        for (int j = 0; j < 4; ++j) sums[i][j] = bias;
#pragma unroll
      for (int step = 0; step < STRIP + K - 1; ++step, from += u.stride) {
        float x[12];
        load_floats(x, from);
#pragma unroll
        for (int i = 0; i < STRIP; ++i)
          if (step >= i && step - i < K)
#pragma unroll
            for (int tap = 0; tap < K; ++tap)
#pragma unroll
              for (int j = 0; j < 4; ++j)
                sums[i][j] = fmaf(x[LEFT - PADDING + tap + j], taps[(step - i) * K + tap], sums[i][j]);
      }
      float* y = p.y + start + image * image_size + (row * u.width + column);
      store_strip<COUNT>(y, sums, u.width, u.height - row, u.width - column);
    }
    if (next >= u.units) break;
  }
}
