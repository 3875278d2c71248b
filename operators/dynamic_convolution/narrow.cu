// Dynamic convolution of groups of few channels, a depthwise one above all, where a matrix product would be mostly
// padding; and what is left of the gradients of experts and attention once each tile or block has given its part.
#include "mixtures.cuh"
#include "sums.cuh"

struct Geometry {
  int height, width, rows, columns;  // of the input and of the output
  int kernel, stride, padding, dilation;
  int groups, channels, outputs, experts;  // channels and outputs of a group
};

// Filters of one expert.
DEVICE int size_of(const Geometry& at) {
  return at.groups * at.outputs * at.channels * at.kernel * at.kernel;
}

// A block is a part of one plane, `chunks` parts in all.
struct Part {
  int plane, pixel;

  DEVICE Part at(int chunks) {
    const int plane = blockIdx.x / chunks;
    return {plane, static_cast<int>((blockIdx.x - plane * chunks) * blockDim.x + threadIdx.x)};
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
template <typename T>
__global__ void __launch_bounds__(256) narrow_forward(const NarrowForward p) {
  SHARED_MEMORY(float, filter);
  const Geometry& at = p.at;
  const Part part = Part::at(p.chunks);
  const int image = part.plane / (at.groups * at.outputs), output = part.plane - image * at.groups * at.outputs;
  const int taps = at.channels * at.kernel * at.kernel;
  const Attention<T, 0> attention(p.attention, image, at.experts);
  const T* weight = static_cast<const T*>(p.weight) + static_cast<long long>(output) * taps;
  for (int tap = threadIdx.x; tap < taps; tap += blockDim.x) {
    float sum[1];
    mix(sum, weight + tap, size_of(at), attention);
    filter[tap] = sum[0];
  }
  __syncthreads();
  if (part.pixel >= at.rows * at.columns) return;
  const int y = part.pixel / at.columns, top = y * at.stride - at.padding;
  const int left = (part.pixel - y * at.columns) * at.stride - at.padding, size = at.height * at.width;
  const T* x = static_cast<const T*>(p.x) +
               (static_cast<long long>(image) * at.groups + output / at.outputs) * at.channels * size;
  float sum[1] = {0};
  if (p.bias) mix(sum, static_cast<const T*>(p.bias) + output, at.groups * at.outputs, attention);
  for (int channel = 0; channel < at.channels; ++channel, x += size)
    for (int a = 0; a < at.kernel; ++a)
      for (int b = 0; b < at.kernel; ++b, ++filter) {
        const int h = top + a * at.dilation, w = left + b * at.dilation;
        if (h >= 0 && h < at.height && w >= 0 && w < at.width)
          sum[0] = fmaf(*filter, to_float(x[h * at.width + w]), sum[0]);
      }
  static_cast<T*>(p.y)[static_cast<long long>(part.plane) * at.rows * at.columns + part.pixel] = from_float<T>(sum[0]);
}

struct NarrowInputGradient {
  const void* gradient;   // [N, G * outputs, Ho, Wo]
  const void* weight;     // [experts, G * outputs, channels, k, k]
  const void* attention;  // [N, experts]
  void* result;           // [N, G * channels, H, W]
  Geometry at;
  int chunks;
};

template <typename T>
__global__ void __launch_bounds__(256) narrow_input_gradient(const NarrowInputGradient p) {
  SHARED_MEMORY(float, filters);  // [outputs, k, k]
  const Geometry& at = p.at;
  const Part part = Part::at(p.chunks);
  const int image = part.plane / (at.groups * at.channels), channel = part.plane - image * at.groups * at.channels;
  const int taps = at.kernel * at.kernel, group = channel / at.channels;
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
  if (part.pixel >= at.height * at.width) return;
  const int row = part.pixel / at.width, h = row + at.padding, w = part.pixel - row * at.width + at.padding;
  const int size = at.rows * at.columns;
  const T* gradient = static_cast<const T*>(p.gradient) +
                      (static_cast<long long>(image) * at.groups + group) * at.outputs * size;
  float sum = 0;
  for (int a = 0; a < at.kernel; ++a) {
    const int y = (h - a * at.dilation) / at.stride;
    if (h < a * at.dilation || y >= at.rows || y * at.stride != h - a * at.dilation) continue;
    for (int b = 0; b < at.kernel; ++b) {
      const int x = (w - b * at.dilation) / at.stride;
      if (w < b * at.dilation || x >= at.columns || x * at.stride != w - b * at.dilation) continue;
      for (int output = 0; output < at.outputs; ++output)
        sum = fmaf(filters[output * taps + a * at.kernel + b], to_float(gradient[output * size + y * at.columns + x]),
                   sum);
    }
  }
  static_cast<T*>(p.result)[static_cast<long long>(part.plane) * at.height * at.width + part.pixel] =
      from_float<T>(sum);
}

struct NarrowWeightGradient {
  const void* gradient;   // [N, G * outputs, Ho, Wo]
  const void* x;          // [N, G * channels, H, W]
  const void* weight;     // [experts, G * outputs, channels, k, k]
  const void* attention;  // [N, experts]
  float* result;          // [splits, experts, G * outputs, channels, k, k] or null
  float* products;        // [N, experts, tiles] or null: of each block's part of an image's gradient, with each expert
  Geometry at;
  int images, share, tiles, splits;  // share: images of a block; tiles: blocks of 8 weights
};

// One warp is one weight, one lane one of 32 experts at a time: image by image the lanes share the sum over the plane,
// then each adds to its expert's gradient what the attention gives it.
template <typename T>
__global__ void __launch_bounds__(256) narrow_weight_gradient(const NarrowWeightGradient p) {
  SHARED_MEMORY(float, products);  // [8 warps, 32 experts]
  const Geometry& at = p.at;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, taps = at.kernel * at.kernel;
  const int tile = blockIdx.x % p.tiles, split = blockIdx.x / p.tiles % p.splits;
  const int expert = blockIdx.x / p.tiles / p.splits * 32 + lane;
  const int weights = size_of(at), number = tile * 8 + warp;
  const bool real = number < weights;
  const int weight = real ? number : 0;
  const int tap = weight % taps, filter = weight / taps, channel = filter % at.channels, output = filter / at.channels;
  const int top = tap / at.kernel * at.dilation - at.padding, left = tap % at.kernel * at.dilation - at.padding;
  const int size = at.height * at.width, pixels = at.rows * at.columns;
  const bool mine = real && expert < at.experts;
  const float own = mine ? to_float(static_cast<const T*>(p.weight)[expert * weights + weight]) : 0;
  float gradient_of_expert = 0;
  for (int image = split * p.share; image < min(p.images, (split + 1) * p.share); ++image) {
    const T* x = static_cast<const T*>(p.x) +
                 ((static_cast<long long>(image) * at.groups + output / at.outputs) * at.channels + channel) * size;
    const T* gradient = static_cast<const T*>(p.gradient) +
                        (static_cast<long long>(image) * at.groups * at.outputs + output) * pixels;
    float sum = 0;
    for (int pixel = lane; pixel < pixels; pixel += 32) {
      const int y = pixel / at.columns, h = y * at.stride + top, w = (pixel - y * at.columns) * at.stride + left;
      if (h >= 0 && h < at.height && w >= 0 && w < at.width)
        sum = fmaf(to_float(gradient[pixel]), to_float(x[h * at.width + w]), sum);
    }
    sum = warp_sum(sum);
    const long long place = static_cast<long long>(image) * at.experts + expert;
    if (mine) gradient_of_expert = fmaf(to_float(static_cast<const T*>(p.attention)[place]), sum, gradient_of_expert);
    if (!p.products) continue;
    products[threadIdx.x] = mine ? own * sum : 0;
    __syncthreads();
    if (warp == 0 && expert < at.experts) {
      float total = 0;
      for (int i = 0; i < 8; ++i) total += products[i * 32 + lane];
      p.products[place * p.tiles + tile] = total;
    }
    __syncthreads();
  }
  if (p.result && mine) p.result[(split * static_cast<long long>(at.experts) + expert) * weights + weight] = gradient_of_expert;
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
