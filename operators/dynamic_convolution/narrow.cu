// Dynamic convolution of groups of few channels, a depthwise one above all, where a matrix product would be mostly
// padding; and what is left of the gradients of experts and attention once each tile or block has given its part.
#include "mixtures.cuh"
#include "sums.cuh"

struct Geometry {
  int height;  // of the input
  Divisor width;
  int rows;  // of the output
  Divisor columns;
  int kernel, stride, padding, dilation;
  int groups, channels, outputs, experts;  // channels and outputs of a group
};

// Filters of one expert.
DEVICE int size_of(const Geometry& at) {
  return at.groups * at.outputs * at.channels * at.kernel * at.kernel;
}

// Kernels are made for a few sizes of the filter, K, of which loops are unrolled; 0 is any size.
template <int K>
DEVICE int kernel_size(const Geometry& at) {
  return K > 0 ? K : at.kernel;
}

// A block is a part of one plane, of which there are `chunks`: each thread has up to EACH pixels, a block's width apart,
// so that what the block knows of the plane serves several.
constexpr int EACH = 4;

struct Part {
  int plane, first, last;

  DEVICE Part at(int chunks, int pixels) {
    const int plane = blockIdx.x / chunks, first = (blockIdx.x - plane * chunks) * blockDim.x * EACH;
    return {plane, static_cast<int>(first + threadIdx.x), min(pixels, static_cast<int>(first + blockDim.x * EACH))};
  }
};

struct NarrowForward {
  const void* x;          // [N, G * channels, H, W]
  const void* weight;     // [experts, G * outputs, channels, k, k]
  const void* bias;       // [experts, G * outputs] or null
  const void* attention;  // [N, experts]
  void* y;                // [N, G * outputs, Ho, Wo]
  Geometry at;
  int chunks;
};

// One thread is one value, in the order of the definition; the block mixes its plane's filter first.
template <typename T, int K>
__global__ void __launch_bounds__(256) narrow_forward(const NarrowForward p) {
  SHARED_MEMORY(float, filter);
  const Geometry& at = p.at;
  const int pixels = at.rows * at.columns.by;
  const Part part = Part::at(p.chunks, pixels);
  const int image = part.plane / (at.groups * at.outputs), output = part.plane - image * at.groups * at.outputs;
  const int kernel = kernel_size<K>(at), taps = at.channels * kernel * kernel;
  const Attention<T, 0> attention(p.attention, image, at.experts);
  const T* weight = static_cast<const T*>(p.weight) + static_cast<long long>(output) * taps;
  for (int tap = threadIdx.x; tap < taps; tap += blockDim.x) {
    float sum[1];
    mix(sum, weight + tap, size_of(at), attention);
    filter[tap] = sum[0];
  }
  __syncthreads();
  const int size = at.height * at.width.by;
  const T* x = static_cast<const T*>(p.x) +
               (static_cast<long long>(image) * at.groups + output / at.outputs) * at.channels * size;
  T* result = static_cast<T*>(p.y) + static_cast<long long>(part.plane) * pixels;
  float offset[1] = {0};
  if (p.bias) mix(offset, static_cast<const T*>(p.bias) + output, at.groups * at.outputs, attention);
  for (int pixel = part.first; pixel < part.last; pixel += blockDim.x) {
    const int y = at.columns.quotient(pixel), top = y * at.stride - at.padding;
    const int left = (pixel - y * at.columns.by) * at.stride - at.padding;
    float sum = offset[0];
    for (int channel = 0; channel < at.channels; ++channel)
#pragma unroll
      for (int a = 0; a < kernel; ++a) {
        const int h = top + a * at.dilation;
        if (h < 0 || h >= at.height) continue;
        const T* row = x + channel * size + h * at.width.by;
#pragma unroll
        for (int b = 0; b < kernel; ++b) {
          const int w = left + b * at.dilation;
          if (w >= 0 && w < at.width.by)
            sum = fmaf(filter[(channel * kernel + a) * kernel + b], to_float(row[w]), sum);
        }
      }
    result[pixel] = from_float<T>(sum);
  }
}

struct NarrowInputGradient {
  const void* gradient;   // [N, G * outputs, Ho, Wo]
  const void* weight;     // [experts, G * outputs, channels, k, k]
  const void* attention;  // [N, experts]
  void* result;           // [N, G * channels, H, W]
  Geometry at;
  int chunks;
};

template <typename T, int K, bool STRIDED>
__global__ void __launch_bounds__(256) narrow_input_gradient(const NarrowInputGradient p) {
  SHARED_MEMORY(float, filters);  // [outputs, k, k]
  const Geometry& at = p.at;
  const int pixels = at.height * at.width.by;
  const Part part = Part::at(p.chunks, pixels);
  const int image = part.plane / (at.groups * at.channels), channel = part.plane - image * at.groups * at.channels;
  const int kernel = kernel_size<K>(at), taps = kernel * kernel, group = channel / at.channels;
  const int stride = STRIDED ? at.stride : 1;
  const Attention<T, 0> attention(p.attention, image, at.experts);
  const T* weight = static_cast<const T*>(p.weight) +
                    (static_cast<long long>(group) * at.outputs * at.channels + channel % at.channels) * taps;
  for (int i = threadIdx.x; i < at.outputs * taps; i += blockDim.x) {
    const int output = i / taps, tap = i - output * taps;
    float sum[1];
    mix(sum, weight + output * at.channels * taps + tap, size_of(at), attention);
    filters[i] = sum[0];
  }
  __syncthreads();
  const int size = at.rows * at.columns.by;
  const T* gradient = static_cast<const T*>(p.gradient) +
                      (static_cast<long long>(image) * at.groups + group) * at.outputs * size;
  T* result = static_cast<T*>(p.result) + static_cast<long long>(part.plane) * pixels;
  for (int pixel = part.first; pixel < part.last; pixel += blockDim.x) {
    const int row = at.width.quotient(pixel), h = row + at.padding, w = pixel - row * at.width.by + at.padding;
    float sum = 0;
    for (int output = 0; output < at.outputs; ++output)
#pragma unroll
      for (int a = 0; a < kernel; ++a) {
        const int down = h - a * at.dilation, y = down / stride;
        if (down < 0 || y >= at.rows || y * stride != down) continue;
        const T* seen_by = gradient + output * size + y * at.columns.by;
#pragma unroll
        for (int b = 0; b < kernel; ++b) {
          const int across = w - b * at.dilation, x = across / stride;
          if (across >= 0 && x < at.columns.by && x * stride == across)
            sum = fmaf(filters[(output * kernel + a) * kernel + b], to_float(seen_by[x]), sum);
        }
      }
    result[pixel] = from_float<T>(sum);
  }
}

struct NarrowWeightGradient {
  const void* gradient;   // [N, G * outputs, Ho, Wo]
  const void* x;          // [N, G * channels, H, W]
  const void* weight;     // [experts, G * outputs, channels, k, k]
  const void* attention;  // [N, experts]
  float* result;          // [splits, experts, G * outputs, channels, k, k] or null
  float* products;        // [N, experts, tiles] or null: of each block's part of an image's gradient, with each expert
  Geometry at;
  int images, share, tiles, splits;  // share: images of a block; tiles: blocks of 8 warps' weights
};

// One warp is a filter of K x K taps, or where K is 0 one tap; one lane is one of 32 experts at a time: image by image
// the lanes share the sum over the plane, then each adds to its expert's gradient what the attention gives it.
template <typename T, int K>
__global__ void __launch_bounds__(256, 2) narrow_weight_gradient(const NarrowWeightGradient p) {
  constexpr int TAPS = K > 0 ? K * K : 1;
  SHARED_MEMORY(float, products);  // [8 warps, 32 experts]
  const Geometry& at = p.at;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, kernel = kernel_size<K>(at), taps = kernel * kernel;
  const int tile = blockIdx.x % p.tiles, split = blockIdx.x / p.tiles % p.splits;
  const int expert = blockIdx.x / p.tiles / p.splits * 32 + lane;
  const int weights = size_of(at);
  const long long number = (tile * 8LL + warp) * TAPS;
  const bool real = number < weights, mine = real && expert < at.experts;
  const int weight = real ? static_cast<int>(number) : 0, filter = weight / taps, first = weight - filter * taps;
  const int channel = filter % at.channels, output = filter / at.channels;
  const int top = first / kernel * at.dilation - at.padding, left = first % kernel * at.dilation - at.padding;
  const int size = at.height * at.width.by, pixels = at.rows * at.columns.by;
  const long long own = static_cast<long long>(expert) * weights + weight;
  float gradients[TAPS] = {};
  for (int image = split * p.share; image < min(p.images, (split + 1) * p.share); ++image) {
    const T* x = static_cast<const T*>(p.x) +
                 ((static_cast<long long>(image) * at.groups + output / at.outputs) * at.channels + channel) * size;
    const T* gradient = static_cast<const T*>(p.gradient) +
                        (static_cast<long long>(image) * at.groups * at.outputs + output) * pixels;
    float sums[TAPS] = {};
    for (int pixel = lane; pixel < pixels; pixel += 32) {
      const float value = to_float(gradient[pixel]);
      const int y = at.columns.quotient(pixel), h = y * at.stride + top;
      const int w = (pixel - y * at.columns.by) * at.stride + left;
#pragma unroll
      for (int t = 0; t < TAPS; ++t) {
        const int row = h + t / max(K, 1) * at.dilation, column = w + t % max(K, 1) * at.dilation;
        if (row >= 0 && row < at.height && column >= 0 && column < at.width.by)
          sums[t] = fmaf(value, to_float(x[row * at.width.by + column]), sums[t]);
      }
    }
    const long long place = static_cast<long long>(image) * at.experts + expert;
    const float share = mine ? to_float(static_cast<const T*>(p.attention)[place]) : 0;
    float product = 0;
#pragma unroll
    for (int t = 0; t < TAPS; ++t) {
      sums[t] = warp_sum(sums[t]);
      gradients[t] = fmaf(share, sums[t], gradients[t]);
      if (mine && p.products) product = fmaf(to_float(static_cast<const T*>(p.weight)[own + t]), sums[t], product);
    }
    if (!p.products) continue;
    products[threadIdx.x] = product;
    __syncthreads();
    if (warp == 0 && expert < at.experts) {
      float total = 0;
      for (int i = 0; i < 8; ++i) total += products[i * 32 + lane];
      p.products[place * p.tiles + tile] = total;
    }
    __syncthreads();
  }
  if (!p.result || !mine) return;
#pragma unroll
  for (int t = 0; t < TAPS; ++t)
    p.result[split * static_cast<long long>(at.experts) * weights + own + t] = gradients[t];
}

struct PlaneSums {
  const void* gradient;  // [N, O, Ho, Wo]
  float* sums;           // [N, O]
  int planes, pixels;
};

// One warp is one plane.
template <typename T>
__global__ void __launch_bounds__(256) plane_sums(const PlaneSums p) {
  const int plane = blockIdx.x * 8 + threadIdx.x / 32;
  if (plane >= p.planes) return;
  const T* gradient = static_cast<const T*>(p.gradient) + static_cast<long long>(plane) * p.pixels;
  float sum = 0;
  for (int pixel = threadIdx.x % 32; pixel < p.pixels; pixel += 32) sum += to_float(gradient[pixel]);
  sum = warp_sum(sum);
  if (threadIdx.x % 32 == 0) p.sums[plane] = sum;
}

struct BiasGradient {
  const void* attention;  // [N, experts]
  const float* sums;      // [N, O]
  void* result;           // [experts, O]
  int images, experts, outputs;
};

template <typename T>
__global__ void __launch_bounds__(256) bias_gradient(const BiasGradient p) {
  const int i = blockIdx.x * 256 + threadIdx.x;
  if (i >= p.experts * p.outputs) return;
  const int expert = i / p.outputs, output = i - expert * p.outputs;
  float sum = 0;
  for (int image = 0; image < p.images; ++image)
    sum = fmaf(to_float(static_cast<const T*>(p.attention)[static_cast<long long>(image) * p.experts + expert]),
               p.sums[static_cast<long long>(image) * p.outputs + output], sum);
  static_cast<T*>(p.result)[i] = from_float<T>(sum);
}

struct AttentionGradient {
  void* result;           // [N, experts]
  const void* bias;       // [experts, O] or null
  const float* products;  // [N, experts, tiles]
  const float* sums;      // [N, O], or null as the bias
  int number, experts, outputs, tiles;  // number: images times experts
};

// One warp is one image and one expert: the expert's filters and biases times the image's own gradient of them.
template <typename T>
__global__ void __launch_bounds__(256) attention_gradient(const AttentionGradient p) {
  const int i = blockIdx.x * 8 + threadIdx.x / 32, lane = threadIdx.x % 32;
  if (i >= p.number) return;
  const int image = i / p.experts, expert = i - image * p.experts;
  const float* products = p.products + static_cast<long long>(i) * p.tiles;
  float sum = 0;
  for (int tile = lane; tile < p.tiles; tile += 32) sum += products[tile];
  if (p.bias) {
    const T* bias = static_cast<const T*>(p.bias) + static_cast<long long>(expert) * p.outputs;
    const float* sums = p.sums + static_cast<long long>(image) * p.outputs;
    for (int output = lane; output < p.outputs; output += 32) sum = fmaf(to_float(bias[output]), sums[output], sum);
  }
  sum = warp_sum(sum);
  if (lane == 0) static_cast<T*>(p.result)[i] = from_float<T>(sum);
}
