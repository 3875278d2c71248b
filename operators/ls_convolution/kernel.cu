// Small-kernel aggregation: y[n,c,h,w] = sum over taps (a,b) of x[n,c,h+a-K/2,w+b-K/2] * weight[n,group(c),a,b,h,w],
// zeros outside the image.
//
// One thread takes PIXELS neighbours of a row through all channels of a group: it loads their kernels once, and keeps
// them in registers. Rows of x come through L1, where the block's other threads find them again. Every gradient is a
// gather, so none needs an atomic sum or a second kernel.
//
// These kernels are for the K that registers have room for; aggregation.cuh has those for any other.
#include "aggregation.cuh"
#include "rows.cuh"

constexpr int THREADS = 128;

// What every kernel is told of its tensors; channel `member` of a group is plane `group * group_step + member *
// member_step` of an image.
struct Shape {
  int images, groups, members, group_step, member_step, height, width;
};

struct SmallAggregation {
  const void* x;       // [N, C, H, W]
  const void* weight;  // [N, G, K, K, H, W]
  void* y;             // [N, C, H, W]
  Shape shape;
};

struct SmallAggregationGradients {
  const void* gradient;  // [N, C, H, W]
  const void* x;         // [N, C, H, W]; null unless the gradient of the weight is wanted
  const void* weight;    // [N, G, K, K, H, W]; null unless that of x is wanted
  void* grad_x;          // [N, C, H, W] or null
  void* grad_weight;     // [N, G, K, K, H, W] or null
  Shape shape;
};

// The pixels of a thread.
struct Place {
  bool exists;
  int row, column, pixel;  // of the first of them
  long long group;         // counted over all images
  long long first;         // offset of the pixel in the group's first channel
};

template <int PIXELS>
DEVICE Place place_of(const Shape& shape) {
  const int image = blockIdx.z * gridDim.y + blockIdx.y, plane = shape.height * shape.width;
  const Segment at = segment_at<PIXELS>(blockIdx.x * THREADS + threadIdx.x, shape.height, shape.width);
  const int pixel = at.row * shape.width + at.column, first = at.plane * shape.group_step * plane + pixel;
  const long long groups = static_cast<long long>(image) * shape.groups;
  return {image < shape.images && at.plane < shape.groups, at.row, at.column, pixel, groups + at.plane,
          groups * (shape.members * plane) + first};
}

// Loads the kernel of each pixel of a segment, with zeros for rows beyond the image.
template <int K, typename T, int PIXELS>
DEVICE void load_kernel(float (&kernel)[K * K][PIXELS], const T* weight, const Place& at, const Shape& shape) {
#pragma unroll
  for (int tap = 0; tap < K * K; ++tap) {
    float taps[PIXELS] = {};
    if (has_row(at.row, tap / K - K / 2, shape.height)) load_floats(taps, weight + tap * shape.height * shape.width);
#pragma unroll
    for (int i = 0; i < PIXELS; ++i) kernel[tap][i] = taps[i];
  }
}

// Loads for each pixel of a segment the taps that reach it from its neighbours, zeros for those beyond the image.
template <int K, typename T, int PIXELS>
DEVICE void load_turned(float (&kernel)[K * K][PIXELS], const T* weight, const Place& at, const Shape& shape) {
#pragma unroll
  for (int a = 0; a < K; ++a)
#pragma unroll
    for (int b = 0; b < K; ++b) {
      const int tap = (K - 1 - a) * K + K - 1 - b, down = a - K / 2;
      float row[PIXELS + K - 1] = {};
      if (has_row(at.row, down, shape.height))
        load_row<K / 2>(row, weight + (tap * shape.height + down) * shape.width, at.column, shape.width);
#pragma unroll
      for (int i = 0; i < PIXELS; ++i) kernel[a * K + b][i] = row[i + b];
    }
}

// Channels are taken TOGETHER at a time, a divisor of the group's: their loads are under way at once.
//
// Predicted bound on an H200, K = 3 and groups of 8: memory, 0.76 cycles of a multiprocessor an output in float32 and
// 0.38 in 16 bits; instructions issue in 0.17 to 0.33 with 4 and 2 pixels, and in 0.57 with one.
template <typename T, int K, int PIXELS, int TOGETHER>
__global__ void __launch_bounds__(THREADS) aggregate(const SmallAggregation p) {
  const Place at = place_of<PIXELS>(p.shape);
  if (!at.exists) return;
  const int plane = p.shape.height * p.shape.width, step = p.shape.member_step * plane;
  const T* x = static_cast<const T*>(p.x) + at.first;
  const T* weight = static_cast<const T*>(p.weight) + at.group * (K * K * plane) + at.pixel;
  T* y = static_cast<T*>(p.y) + at.first;
  float kernel[K * K][PIXELS];
  load_kernel<K>(kernel, weight, at, p.shape);
#pragma unroll 1
  for (int member = 0; member < p.shape.members; member += TOGETHER) {
    float rows[TOGETHER][K][PIXELS + K - 1];
#pragma unroll
    for (int t = 0; t < TOGETHER; ++t)
      load_rows<K>(rows[t], x + t * step, at.row, at.column, p.shape.height, p.shape.width);
#pragma unroll
    for (int t = 0; t < TOGETHER; ++t) {
      float sums[PIXELS];
      weigh<K>(sums, kernel, rows[t]);
      store_floats(y + t * step, sums);
    }
    x += TOGETHER * step;
    y += TOGETHER * step;
  }
}

// The gradients that are wanted, of one reading of the incoming one.
//
// That of x is the same sum with kernels turned by half a turn, each tap taken from the pixel it was applied at:
// grad_x[n,c,h,w] = sum over (a,b) of gradient[n,c,h+a-K/2,w+b-K/2] * weight[n,group(c),K-1-a,K-1-b,h+a-K/2,w+b-K/2].
//
// Predicted bound on an H200, K = 3 and groups of 8, for an element of x: memory, 1.27 cycles in float32 and 0.64 in 16
// bits; instructions issue in 0.36 to 0.63 with 4 and 2 pixels, and in 1.0 with one: planes.cu is for rows of 7.
template <typename T, int K, int PIXELS, int TOGETHER, bool GRAD_X, bool GRAD_WEIGHT>
__global__ void __launch_bounds__(THREADS) aggregate_backward(const SmallAggregationGradients p) {
  const Place at = place_of<PIXELS>(p.shape);
  if (!at.exists) return;
  const int plane = p.shape.height * p.shape.width, step = p.shape.member_step * plane;
  const T* gradient = static_cast<const T*>(p.gradient) + at.first;
  const T* x = static_cast<const T*>(p.x) + at.first;
  const T* weight = static_cast<const T*>(p.weight) + at.group * (K * K * plane) + at.pixel;
  T* grad_x = static_cast<T*>(p.grad_x) + at.first;
  T* grad_weight = static_cast<T*>(p.grad_weight) + at.group * (K * K * plane) + at.pixel;
  float turned[K * K][PIXELS], sums[K * K][PIXELS] = {};
  if constexpr (GRAD_X) load_turned<K>(turned, weight, at, p.shape);
#pragma unroll 1
  for (int member = 0; member < p.shape.members; member += TOGETHER) {
    float gradients[TOGETHER][K][PIXELS + K - 1], rows[TOGETHER][K][PIXELS + K - 1];
#pragma unroll
    for (int t = 0; t < TOGETHER; ++t) {
      load_rows<K>(gradients[t], gradient + t * step, at.row, at.column, p.shape.height, p.shape.width);
      if constexpr (GRAD_WEIGHT)
        load_rows<K>(rows[t], x + t * step, at.row, at.column, p.shape.height, p.shape.width);
    }
#pragma unroll
    for (int t = 0; t < TOGETHER; ++t) {
      float grad[PIXELS];
      if constexpr (GRAD_WEIGHT) {
        take_middle<K>(grad, gradients[t]);
        correlate<K>(sums, grad, rows[t]);
      }
      if constexpr (GRAD_X) {
        weigh<K>(grad, turned, gradients[t]);
        store_floats(grad_x + t * step, grad);
      }
    }
    gradient += TOGETHER * step;
    x += TOGETHER * step;
    grad_x += TOGETHER * step;
  }
  if constexpr (GRAD_WEIGHT) {
    clear_beyond<K>(sums, at.row, p.shape.height);
#pragma unroll
    for (int tap = 0; tap < K * K; ++tap) store_floats(grad_weight + tap * plane, sums[tap]);
  }
}
