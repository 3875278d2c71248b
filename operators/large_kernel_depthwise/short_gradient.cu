// Gradient of the filter of a depthwise convolution of stride 1 in float32 with at most seven taps per side, without
// atomics.
//
// A thread keeps sums for all taps. It holds 7 rows of 4 values of the gradient in registers, and every row of the
// image that their taps see is loaded once, as three vectors, and meets all of them. At the end lanes and warps are
// added up in order. What a block finds in its share of the images is one of `splits` parts, which sum_parts adds in
// order.
//
// Predicted bounds on an H200, clocks of an SM per pixel where memory takes 0.49: 7x7 on 56x56 0.49 (memory; issue
// 0.48, of it 0.38 multiply-adds), on 28x28 0.52 (issue), on 14x14 0.61 (issue). Not measured.
#include "strips.cuh"

struct ShortGradient {
  const float* gradient;  // [N, C, H, W]
  const float* x;         // [N, C, H, W]
  float* parts;           // [splits, C, K * K, and one more where there is a bias]
  Units units;
  int with_bias;
};

// Loads a thread's rows of the gradient, zeros where they lie outside the image, COUNT values at a time.
template <int COUNT>
DEVICE void load_strip(float (&values)[STRIP][4], const float* from, int width, int rows, int columns) {
#pragma unroll
  for (int i = 0; i < STRIP; ++i, from += width)
#pragma unroll
    for (int j = 0; j < 4; j += COUNT) {
      float some[COUNT];
#pragma unroll
      for (int e = 0; e < COUNT; ++e) some[e] = 0;
      if (i < rows && j < columns) load_floats(some, from + j);
#pragma unroll
      for (int e = 0; e < COUNT; ++e) values[i][j + e] = some[e];
    }
}

// Adds up each of COUNT values over a warp, by halves: lanes exchange half of what they have left. Afterwards
// values[0], values[1], ... are the sums of the values `first`, `first` + 1, ..., `count` of them, none twice.
template <int COUNT, int DISTANCE>
DEVICE void add_lanes(float (&values)[COUNT], int& first, int& count) {
  if constexpr (DISTANCE > 0) {
    constexpr int HALF = (COUNT + 1) / 2;
    const bool upper = threadIdx.x & DISTANCE;
    float half[HALF];
#pragma unroll
    for (int i = 0; i < HALF; ++i) {
      const float low = values[i], high = i + HALF < COUNT ? values[i + HALF] : 0.f;
      half[i] = (upper ? high : low) + __shfl_xor_sync(0xffffffffu, upper ? low : high, DISTANCE);
    }
    first += upper ? HALF : 0;
    count = upper ? max(0, count - HALF) : min(count, HALF);
    add_lanes<HALF, DISTANCE / 2>(half, first, count);
#pragma unroll
    for (int i = 0; i < HALF; ++i) values[i] = half[i];
  }
}

// COUNT: values of an access, of which a row has a whole number.
template <int K, int COUNT>
__global__ void __launch_bounds__(256, 2) weight_parts_short(const ShortGradient p) {
  constexpr int PADDING = K / 2, SQUARE = K * K, LENGTH = SQUARE + 1, FOUND = (LENGTH + 31) / 32;
  SHARED_MEMORY(float, buffers);

  const Units& u = p.units;
  const int channel = blockIdx.x % u.channels, split = blockIdx.x / u.channels, plane = u.height * u.width;
  const long long start = static_cast<long long>(channel) * plane;
  const long long image_size = static_cast<long long>(u.channels) * plane;
  const Place place = place_of(u);
  clear(buffers, split + u.splits < u.units ? 2 * u.buffer : u.buffer);
  const int under = (place.image * (u.rows + PADDING) + place.row) * u.stride + place.column;
  float sums[LENGTH];  // the last one the bias's
#pragma unroll
  for (int i = 0; i < LENGTH; ++i) sums[i] = 0;

  Unit unit;
  int buffer = 0;
#pragma unroll 1
  for (int next = split;; next += u.splits) {
    const Unit now = unit;
    const int image = now.image + place.image, row = now.row + place.row, column = now.column + place.column;
    const bool exists = next > split && place.image < u.images && image < u.batch;
    float gradient[STRIP][4];
    if (exists)
      load_strip<COUNT>(gradient, p.gradient + start + image * image_size + (row * u.width + column), u.width,
                        u.height - row, u.width - column);
    wait_for_copies<0>();
    __syncthreads();  // The unit is there, and the one before no longer needed.
    unit = unit_of(u, next);
    if (next < u.units) copy_unit<PADDING, COUNT>(buffers + buffer, p.x + start, u, place, unit);
    buffer = u.buffer - buffer;
    if (exists) {
      const float* from = buffers + buffer + under;
#pragma unroll
      for (int i = 0; i < STRIP; ++i)
#pragma unroll
        for (int j = 0; j < 4; ++j) sums[SQUARE] += gradient[i][j];
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
              for (int j = 0; j < 4; ++j) {
                float& sum = sums[(step - i) * K + tap];
                sum = fmaf(gradient[i][j], x[LEFT - PADDING + tap + j], sum);
              }
      }
    }
    if (next >= u.units) break;
  }

  __syncthreads();  // No unit is needed any longer.
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  int first = 0, count = LENGTH;
  add_lanes<LENGTH, 16>(sums, first, count);
  float* totals = buffers + warp * LENGTH;
#pragma unroll
  for (int i = 0; i < FOUND; ++i)
    if (i < count) totals[first + i] = sums[i];
  __syncthreads();
  const int length = SQUARE + p.with_bias;
#pragma unroll 1
  for (int i = threadIdx.x; i < length; i += blockDim.x) {
    float total = 0;
#pragma unroll 1
    for (int other = 0; other < static_cast<int>(blockDim.x) / 32; ++other) total += buffers[other * LENGTH + i];
    p.parts[(static_cast<long long>(split) * u.channels + channel) * length + i] = total;
  }
}
