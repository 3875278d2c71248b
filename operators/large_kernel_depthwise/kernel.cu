// Depthwise convolution of any kernel size, stride and dilation, and its gradients: the general path.
//
//   y[n,c,i,j] = bias[c] + sum over taps a, b of weight[c,a,b] * x[n, c, i*stride - padding + a*dilation,
//                                                                  j*stride - padding + b*dilation]
//
// zeros outside the image. One thread computes one result, as a gather over the taps that fall inside the image.
// Predicted bound on an H200: the two loads of every multiply-add (LSU, 1/16 clock each), far from memory.
#include "device.cuh"

struct Convolution {
  const void* x;       // [N, C, H, W], or for the input's gradient [N, C, Ho, Wo]: what is gathered from
  const void* weight;  // [C, 1, K, K]
  const void* bias;    // [C] or null
  void* y;             // [N, C, Ho, Wo], or for the input's gradient [N, C, H, W]
  int planes, channels, height, width, out_height, out_width, kernel, stride, dilation, padding;
};

// Taps [first, last) of a window that see a pixel of an axis, `start` being the coordinate under tap 0.
DEVICE void taps_inside(int start, int extent, int kernel, int dilation, int& first, int& last) {
  first = start < 0 ? (-start + dilation - 1) / dilation : 0;
  last = start < extent ? min(kernel, (extent - 1 - start) / dilation + 1) : 0;
}

template <typename T>
__global__ void __launch_bounds__(256) convolve(const Convolution p) {
  const int pixels = p.out_height * p.out_width;
  const long long index = blockIdx.x * 256ll + threadIdx.x, plane = index / pixels;
  if (plane >= p.planes) return;
  const int pixel = static_cast<int>(index - plane * pixels), channel = static_cast<int>(plane % p.channels);
  const int top = pixel / p.out_width * p.stride - p.padding, left = pixel % p.out_width * p.stride - p.padding;
  int first_row, last_row, first_column, last_column;
  taps_inside(top, p.height, p.kernel, p.dilation, first_row, last_row);
  taps_inside(left, p.width, p.kernel, p.dilation, first_column, last_column);
  const T* x = static_cast<const T*>(p.x) + plane * (p.height * p.width);
  const T* weight = static_cast<const T*>(p.weight) + static_cast<long long>(channel) * (p.kernel * p.kernel);
  float sum = p.bias ? to_float(static_cast<const T*>(p.bias)[channel]) : 0.f;
  for (int a = first_row; a < last_row; ++a) {
    const T* row = x + (top + a * p.dilation) * p.width + left;
    for (int b = first_column; b < last_column; ++b)
      sum += to_float(weight[a * p.kernel + b]) * to_float(row[b * p.dilation]);
  }
  static_cast<T*>(p.y)[index] = from_float<T>(sum);
}

// Gradient of the input: pixel (i, j) was seen by tap (a, b) of output ((i + padding - a*dilation) / stride, ...),
// where that is a whole number.
template <typename T>
__global__ void __launch_bounds__(256) convolve_back(const Convolution p) {
  const int pixels = p.height * p.width;
  const long long index = blockIdx.x * 256ll + threadIdx.x, plane = index / pixels;
  if (plane >= p.planes) return;
  const int pixel = static_cast<int>(index - plane * pixels), channel = static_cast<int>(plane % p.channels);
  const int bottom = pixel / p.width + p.padding, right = pixel % p.width + p.padding;
  const T* gradient = static_cast<const T*>(p.x) + plane * (p.out_height * p.out_width);
  const T* weight = static_cast<const T*>(p.weight) + static_cast<long long>(channel) * (p.kernel * p.kernel);
  float sum = 0;
  for (int a = 0; a < p.kernel; ++a) {
    const int down = bottom - a * p.dilation, i = down / p.stride;
    if (down < 0) break;
    if (i >= p.out_height || i * p.stride != down) continue;
    for (int b = 0; b < p.kernel; ++b) {
      const int across = right - b * p.dilation, j = across / p.stride;
      if (across < 0) break;
      if (j >= p.out_width || j * p.stride != across) continue;
      sum += to_float(weight[a * p.kernel + b]) * to_float(gradient[i * p.out_width + j]);
    }
  }
  static_cast<T*>(p.y)[index] = from_float<T>(sum);
}

struct WeightGradient {
  const void* gradient;  // [N, C, Ho, Wo]
  const void* x;         // [N, C, H, W]
  float* parts;          // [splits, C, K * K, and one more where there is a bias]
  int batch, channels, height, width, out_height, out_width, kernel, stride, dilation, padding, splits, with_bias;
};

// One block adds up one channel over its share of all output rows, those whose number leaves `split` by `splits`. Each
// thread takes one tap, the bias being one more; where there are more threads than taps they form groups that take rows
// in turn, where there are fewer they take several rounds.
template <typename T>
__global__ void __launch_bounds__(256) weight_parts(const WeightGradient p) {
  SHARED_MEMORY(float, sums);
  const int square = p.kernel * p.kernel, length = square + p.with_bias, together = min(length, 256);
  const int groups = 256 / together, group = threadIdx.x / together;
  const int channel = blockIdx.x % p.channels, split = blockIdx.x / p.channels;
  const long long rows = static_cast<long long>(p.batch) * p.out_height;
  float* part = p.parts + (static_cast<long long>(split) * p.channels + channel) * length;
  for (int round = 0; round < length; round += together) {
    const int tap = round + threadIdx.x % together;
    const int a = tap / p.kernel * p.dilation - p.padding, b = tap % p.kernel * p.dilation - p.padding;
    int first = 0, last = p.out_width;
    if (tap < square) taps_inside(b, p.width, p.out_width, p.stride, first, last);
    float sum = 0;
    for (long long number = split + static_cast<long long>(group) * p.splits;
         group < groups && tap < length && number < rows; number += groups * p.splits) {
      const long long plane = number / p.out_height * p.channels + channel;
      const int row = static_cast<int>(number % p.out_height), seen = row * p.stride + a;
      const T* gradient = static_cast<const T*>(p.gradient) + (plane * p.out_height + row) * p.out_width;
      const T* x = static_cast<const T*>(p.x) + (plane * p.height + seen) * p.width + b;
      if (tap == square) {
        for (int j = first; j < last; ++j) sum += to_float(gradient[j]);
      } else if (seen >= 0 && seen < p.height) {
        for (int j = first; j < last; ++j) sum += to_float(gradient[j]) * to_float(x[j * p.stride]);
      }
    }
    sums[threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.x < together && tap < length) {
      sum = 0;
      for (int other = 0; other < groups; ++other) sum += sums[other * together + threadIdx.x];
      part[tap] = sum;
    }
    __syncthreads();
  }
}

struct Sum {
  void* weight;        // [C, 1, K, K]
  void* bias;          // [C] or null
  const float* parts;  // [splits, C, length]
  int channels, square, length, splits;
};

// Adds the parts of every weight and bias in order, whatever made them.
template <typename T>
__global__ void __launch_bounds__(256) sum_parts(const Sum p) {
  const long long index = blockIdx.x * 256ll + threadIdx.x, total = static_cast<long long>(p.channels) * p.length;
  if (index >= total) return;
  float sum = 0;
#pragma unroll 4
  for (int split = 0; split < p.splits; ++split) sum += p.parts[split * total + index];
  const int channel = static_cast<int>(index / p.length), tap = static_cast<int>(index - channel * 1ll * p.length);
  if (tap < p.square)
    static_cast<T*>(p.weight)[channel * 1ll * p.square + tap] = from_float<T>(sum);
  else
    static_cast<T*>(p.bias)[channel] = from_float<T>(sum);
}
