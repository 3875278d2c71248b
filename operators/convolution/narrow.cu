// Convolution of groups of few channels, a depthwise one above all, where a matrix product would be mostly padding:
// one thread for one value, in the order of the definition.
#include "sums.cuh"

struct Geometry {
  int height, width, rows, columns;  // of the input and of the output
  int kernel_height, kernel_width, stride, top, left, dilation;
};

struct NarrowForward {
  const void* x;       // [N, G * channels, H, W]
  const void* weight;  // [G * outputs, channels, kh, kw]
  const void* bias;    // [G * outputs] or null
  void* y;             // [N, G * outputs, Ho, Wo]
  Geometry at;
  int groups, channels, outputs, chunks;  // chunks of 256 values in a plane
};

template <typename T>
__global__ void __launch_bounds__(256) narrow_forward(const NarrowForward p) {
  const Geometry& at = p.at;
  const int plane = blockIdx.x / p.chunks, pixel = (blockIdx.x - plane * p.chunks) * 256 + threadIdx.x;
  if (pixel >= at.rows * at.columns) return;
  const int image = plane / (p.groups * p.outputs), output = plane - image * p.groups * p.outputs;
  const int row = pixel / at.columns * at.stride - at.top, column = pixel % at.columns * at.stride - at.left;
  const int size = at.height * at.width;
  const T* x = static_cast<const T*>(p.x) +
               (static_cast<long long>(image) * p.groups + output / p.outputs) * p.channels * size;
  const T* weight = static_cast<const T*>(p.weight) +
                    static_cast<long long>(output) * p.channels * at.kernel_height * at.kernel_width;
  float sum = 0;
  for (int channel = 0; channel < p.channels; ++channel, x += size)
    for (int a = 0; a < at.kernel_height; ++a)
      for (int b = 0; b < at.kernel_width; ++b, ++weight) {
        const int h = row + a * at.dilation, w = column + b * at.dilation;
        if (h >= 0 && h < at.height && w >= 0 && w < at.width)
          sum = fmaf(to_float(*weight), to_float(x[h * at.width + w]), sum);
      }
  if (p.bias) sum += to_float(static_cast<const T*>(p.bias)[output]);
  static_cast<T*>(p.y)[static_cast<long long>(plane) * at.rows * at.columns + pixel] = from_float<T>(sum);
}

struct NarrowInputGradient {
  const void* gradient;  // [N, G * outputs, Ho, Wo]
  const void* weight;    // [G * outputs, channels, kh, kw]
  void* result;          // [N, G * channels, H, W]
  Geometry at;
  int groups, channels, outputs, chunks;
};

template <typename T>
__global__ void __launch_bounds__(256) narrow_input_gradient(const NarrowInputGradient p) {
  const Geometry& at = p.at;
  const int plane = blockIdx.x / p.chunks, pixel = (blockIdx.x - plane * p.chunks) * 256 + threadIdx.x;
  if (pixel >= at.height * at.width) return;
  const int image = plane / (p.groups * p.channels), channel = plane - image * p.groups * p.channels;
  const int h = pixel / at.width + at.top, w = pixel % at.width + at.left, group = channel / p.channels;
  const int taps = at.kernel_height * at.kernel_width, size = at.rows * at.columns;
  const T* gradient = static_cast<const T*>(p.gradient) +
                      (static_cast<long long>(image) * p.groups + group) * p.outputs * size;
  const T* weight = static_cast<const T*>(p.weight) +
                    (static_cast<long long>(group) * p.outputs * p.channels + channel % p.channels) * taps;
  float sum = 0;
  for (int a = 0; a < at.kernel_height; ++a) {
    const int y = (h - a * at.dilation) / at.stride;
    if (h < a * at.dilation || y >= at.rows || y * at.stride != h - a * at.dilation) continue;
    for (int b = 0; b < at.kernel_width; ++b) {
      const int x = (w - b * at.dilation) / at.stride;
      if (w < b * at.dilation || x >= at.columns || x * at.stride != w - b * at.dilation) continue;
      for (int output = 0; output < p.outputs; ++output)
        sum = fmaf(to_float(weight[output * p.channels * taps + a * at.kernel_width + b]),
                   to_float(gradient[output * size + y * at.columns + x]), sum);
    }
  }
  static_cast<T*>(p.result)[static_cast<long long>(plane) * at.height * at.width + pixel] = from_float<T>(sum);
}

struct NarrowWeightGradient {
  const void* gradient;  // [N, G * outputs, Ho, Wo]
  const void* x;         // [N, G * channels, H, W]
  float* partials;       // [splits, G * outputs, channels, kh, kw]
  Geometry at;
  int images, groups, channels, outputs, share;  // share: images of a block
};

// The sum of what the threads of a block give, at thread 0; `shared` holds a value for each warp.
DEVICE float block_sum(float value, float* shared) {
  value = warp_sum(value);
  if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = value;
  __syncthreads();
  float sum = 0;
  if (threadIdx.x == 0)
    for (int warp = 0; warp < 8; ++warp) sum += shared[warp];
  return sum;
}

// A block has one weight and some of the images; its threads share the outputs of a plane.
template <typename T>
__global__ void __launch_bounds__(256) narrow_weight_gradient(const NarrowWeightGradient p) {
  SHARED_MEMORY(float, shared);
  const Geometry& at = p.at;
  const int taps = at.kernel_height * at.kernel_width, weights = p.groups * p.outputs * p.channels * taps;
  const int split = blockIdx.x / weights, weight = blockIdx.x - split * weights;
  const int tap = weight % taps, channel = weight / taps % p.channels, output = weight / taps / p.channels;
  const int top = tap / at.kernel_width * at.dilation - at.top, left = tap % at.kernel_width * at.dilation - at.left;
  const int size = at.height * at.width, outputs = at.rows * at.columns;
  float sum = 0;
  for (int image = split * p.share; image < min(p.images, (split + 1) * p.share); ++image) {
    const T* x = static_cast<const T*>(p.x) +
                 ((static_cast<long long>(image) * p.groups + output / p.outputs) * p.channels + channel) * size;
    const T* gradient = static_cast<const T*>(p.gradient) +
                        (static_cast<long long>(image) * p.groups * p.outputs + output) * outputs;
    for (int pixel = threadIdx.x; pixel < outputs; pixel += 256) {
      const int row = pixel / at.columns, h = row * at.stride + top, w = (pixel - row * at.columns) * at.stride + left;
      if (h >= 0 && h < at.height && w >= 0 && w < at.width)
        sum = fmaf(to_float(gradient[pixel]), to_float(x[h * at.width + w]), sum);
    }
  }
  sum = block_sum(sum, shared);
  if (threadIdx.x == 0) p.partials[blockIdx.x] = sum;
}

struct ChannelSums {
  const void* gradient;  // [N, O, Ho, Wo]
  float* partials;       // [splits, O]
  int images, channels, plane, share;
};

// A block has one channel and some of the images: the gradient of a bias.
template <typename T>
__global__ void __launch_bounds__(256) channel_sums(const ChannelSums p) {
  SHARED_MEMORY(float, shared);
  const int split = blockIdx.x / p.channels, channel = blockIdx.x - split * p.channels;
  float sum = 0;
  for (int image = split * p.share; image < min(p.images, (split + 1) * p.share); ++image) {
    const T* gradient = static_cast<const T*>(p.gradient) +
                        (static_cast<long long>(image) * p.channels + channel) * p.plane;
    for (int pixel = threadIdx.x; pixel < p.plane; pixel += 256) sum += to_float(gradient[pixel]);
  }
  sum = block_sum(sum, shared);
  if (threadIdx.x == 0) p.partials[blockIdx.x] = sum;
}

struct Swap {
  const void* weight;  // [G, outputs, channels, taps]
  void* swapped;       // [G, channels, outputs, taps]
  int size, outputs, channels, taps;
};

// Filters as the gradient of an input takes them.
template <typename T>
__global__ void __launch_bounds__(256) swap_channels(const Swap p) {
  const int i = blockIdx.x * 256 + threadIdx.x;
  if (i >= p.size) return;
  const int filter = i / p.taps, stack = filter / p.outputs, group = stack / p.channels;
  const int tap = i - filter * p.taps, output = filter - stack * p.outputs, channel = stack - group * p.channels;
  const int from = ((group * p.outputs + output) * p.channels + channel) * p.taps + tap;
  static_cast<T*>(p.swapped)[i] = static_cast<const T*>(p.weight)[from];
}
