// Form B: y[n,c,p] = sum over taps i of scale * <query[n,head(c),:,p], key[n,head(c),:,p+i]> * value[n,c,p+i], zeros
// outside the image, on a window of K x K pixels around p.
//
// A window that holds its own mirror image makes every gradient the same sum: with the roles (query, key, value) taken
// by (gradient, value, key) it is that of the query, by (value, gradient, query) of the key, by (key, query, gradient)
// of the value. So nothing here is scattered, and no affinity is ever stored.
//
// A block is 32 segments of rows wide and some slices of a head's channels deep: each slice sums the affinities over
// its channels, the block adds them up, and each slice weighs the values of its channels.
#include "rows.cuh"

struct Shape {
  int images, heads, head_width, height, width;
  float scale;
};

struct Attention {
  const void* query;  // [N, C, H, W], as are all
  const void* key;
  const void* value;
  void* y;
  Shape shape;
};

struct AttentionGradients {
  const void* gradient;  // [N, C, H, W], as are all
  const void* query;
  const void* key;
  const void* value;
  void* grad_query;
  void* grad_key;
  void* grad_value;
  Shape shape;
};

constexpr int LANES = 32;

// The pixels of a thread, and its first channel.
struct Place {
  bool exists;
  int row, column;
  long long first;  // offset of the first pixel in the slice's first channel
};

template <int PIXELS>
DEVICE Place place_of(const Shape& shape) {
  const int image = blockIdx.z * gridDim.y + blockIdx.y, plane = shape.height * shape.width;
  const unsigned segments = shape.heads * shape.height * (shape.width / PIXELS);
  const unsigned index = blockIdx.x * LANES + threadIdx.x;
  // All threads must come to the barriers: those that are left over follow the last one, and write nothing.
  const Segment at = segment_at<PIXELS>(min(index, segments - 1), shape.height, shape.width);
  const int channel = at.plane * shape.head_width + threadIdx.y;
  const long long images = static_cast<long long>(image) * (shape.heads * shape.head_width * plane);
  return {index < segments, at.row, at.column, images + channel * plane + at.row * shape.width + at.column};
}

// Adds up what the slices of a head have found, in their order, and gives the sums, times `scale`, to all of them.
template <int SLICES, int COUNT, int PIXELS>
DEVICE void add_slices(float (&sums)[COUNT][PIXELS], float scale) {
  constexpr int SUMS = COUNT * PIXELS;
  if constexpr (SLICES > 1) {
    SHARED_MEMORY(float, parts);  // [SLICES, SUMS, LANES]
    const int lane = threadIdx.x, slice = threadIdx.y;
#pragma unroll
    for (int i = 0; i < SUMS; ++i) parts[(slice * SUMS + i) * LANES + lane] = sums[i / PIXELS][i % PIXELS];
    __syncthreads();
#pragma unroll
    for (int first = 0; first < SUMS; first += SLICES) {
      const int i = first + slice;
      if (i >= SUMS) break;
      float sum = 0;
#pragma unroll
      for (int other = 0; other < SLICES; ++other) sum += parts[(other * SUMS + i) * LANES + lane];
      parts[i * LANES + lane] = sum;
    }
    __syncthreads();
#pragma unroll
    for (int i = 0; i < SUMS; ++i) sums[i / PIXELS][i % PIXELS] = parts[i * LANES + lane];
  }
#pragma unroll
  for (int i = 0; i < SUMS; ++i) sums[i / PIXELS][i % PIXELS] *= scale;
}

// Channels of a slice are taken TOGETHER at a time, a divisor of their number: their loads are under way at once.
//
// Predicted bound on an H200, K = 3, 4 pixels: memory, 0.97 cycles of a multiprocessor an output in float32 and 0.49 in
// 16 bits, where instructions issue in 0.39 and 0.45; in 16 bits with fewer pixels, or a larger K, the instructions:
// planes.cu is for 7 and 14 columns.
template <typename T, int K, int PIXELS, int TOGETHER, int SLICES>
__global__ void __launch_bounds__(LANES* SLICES) attend(const Attention p) {
  const Place at = place_of<PIXELS>(p.shape);
  if (static_cast<int>(blockIdx.z * gridDim.y + blockIdx.y) >= p.shape.images) return;
  const int height = p.shape.height, width = p.shape.width, step = SLICES * height * width;
  const int count = p.shape.head_width / SLICES;
  const T* query = static_cast<const T*>(p.query) + at.first;
  const T* key = static_cast<const T*>(p.key) + at.first;
  const T* value = static_cast<const T*>(p.value) + at.first;
  T* y = static_cast<T*>(p.y) + at.first;

  float affinities[K * K][PIXELS] = {};
#pragma unroll 1
  for (int channel = 0; channel < count; channel += TOGETHER) {
    float queries[TOGETHER][PIXELS], keys[TOGETHER][K][PIXELS + K - 1];
#pragma unroll
    for (int t = 0; t < TOGETHER; ++t) {
      load_floats(queries[t], query + t * step);
      load_rows<K>(keys[t], key + t * step, at.row, at.column, height, width);
    }
#pragma unroll
    for (int t = 0; t < TOGETHER; ++t) correlate<K>(affinities, queries[t], keys[t]);
    query += TOGETHER * step;
    key += TOGETHER * step;
  }
  add_slices<SLICES>(affinities, p.shape.scale);
  clear_beyond<K>(affinities, at.row, height);

#pragma unroll 1
  for (int channel = 0; channel < count; channel += TOGETHER) {
    float values[TOGETHER][K][PIXELS + K - 1];
#pragma unroll
    for (int t = 0; t < TOGETHER; ++t) load_rows<K>(values[t], value + t * step, at.row, at.column, height, width);
#pragma unroll
    for (int t = 0; t < TOGETHER; ++t) {
      float sums[PIXELS];
      weigh<K>(sums, affinities, values[t]);
      if (at.exists) store_floats(y + t * step, sums);
    }
    value += TOGETHER * step;
    y += TOGETHER * step;
  }
}

// All three gradients of one reading of the tensors, each with affinities of its own; for more taps than registers can
// hold three times, `attend` gives them one by one.
//
// Predicted bound on an H200, K = 3, for an element of x: memory in float32, 1.70 cycles; in 16 bits instructions, 1.13
// cycles with 4 pixels and 1.73 with 2, where memory takes 0.85.
template <typename T, int K, int PIXELS, int TOGETHER, int SLICES>
__global__ void __launch_bounds__(LANES* SLICES) attend_backward(const AttentionGradients p) {
  const Place at = place_of<PIXELS>(p.shape);
  if (static_cast<int>(blockIdx.z * gridDim.y + blockIdx.y) >= p.shape.images) return;
  constexpr int TAPS = K * K, COUNT = PIXELS + K - 1;
  const int height = p.shape.height, width = p.shape.width, step = SLICES * height * width;
  const int count = p.shape.head_width / SLICES;
  const T* gradient = static_cast<const T*>(p.gradient) + at.first;
  const T* query = static_cast<const T*>(p.query) + at.first;
  const T* key = static_cast<const T*>(p.key) + at.first;
  const T* value = static_cast<const T*>(p.value) + at.first;

  // Of the gradient to the values around, of the value to the gradients around, of the key to the queries around.
  float affinities[3 * TAPS][PIXELS] = {};
#pragma unroll 1
  for (int channel = 0; channel < count; channel += TOGETHER) {
    float gradients[TOGETHER][K][COUNT], queries[TOGETHER][K][COUNT], values[TOGETHER][K][COUNT];
    float keys[TOGETHER][PIXELS];
#pragma unroll
    for (int t = 0; t < TOGETHER; ++t) {
      const int offset = (channel + t) * step;
      load_rows<K>(gradients[t], gradient + offset, at.row, at.column, height, width);
      load_rows<K>(values[t], value + offset, at.row, at.column, height, width);
      load_rows<K>(queries[t], query + offset, at.row, at.column, height, width);
      load_floats(keys[t], key + offset);
    }
#pragma unroll
    for (int t = 0; t < TOGETHER; ++t) {
      float middle[PIXELS];
      take_middle<K>(middle, gradients[t]);
      correlate<K, 0>(affinities, middle, values[t]);
      take_middle<K>(middle, values[t]);
      correlate<K, TAPS>(affinities, middle, gradients[t]);
      correlate<K, 2 * TAPS>(affinities, keys[t], queries[t]);
    }
  }
  add_slices<SLICES>(affinities, p.shape.scale);
  clear_beyond<K, 0>(affinities, at.row, height);
  clear_beyond<K, TAPS>(affinities, at.row, height);
  clear_beyond<K, 2 * TAPS>(affinities, at.row, height);

  T* grad_query = static_cast<T*>(p.grad_query) + at.first;
  T* grad_key = static_cast<T*>(p.grad_key) + at.first;
  T* grad_value = static_cast<T*>(p.grad_value) + at.first;
#pragma unroll 1
  for (int channel = 0; channel < count; channel += TOGETHER) {
    float gradients[TOGETHER][K][COUNT], queries[TOGETHER][K][COUNT], keys[TOGETHER][K][COUNT];
#pragma unroll
    for (int t = 0; t < TOGETHER; ++t) {
      const int offset = (channel + t) * step;
      load_rows<K>(keys[t], key + offset, at.row, at.column, height, width);
      load_rows<K>(queries[t], query + offset, at.row, at.column, height, width);
      load_rows<K>(gradients[t], gradient + offset, at.row, at.column, height, width);
    }
#pragma unroll
    for (int t = 0; t < TOGETHER; ++t) {
      const int offset = (channel + t) * step;
      float sums[3][PIXELS];
      weigh<K, 0>(sums[0], affinities, keys[t]);
      weigh<K, TAPS>(sums[1], affinities, queries[t]);
      weigh<K, 2 * TAPS>(sums[2], affinities, gradients[t]);
      if (!at.exists) continue;
      store_floats(grad_query + offset, sums[0]);
      store_floats(grad_key + offset, sums[1]);
      store_floats(grad_value + offset, sums[2]);
    }
  }
}
