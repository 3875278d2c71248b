// Position-dependent aggregation, whatever its window: y[n,c,i,j] = sum over taps (a, b) of
// weight[n,group(c),a,b,i,j] * x[n, c, i * stride - padding + a * dilation, j * stride - padding + b * dilation], zeros
// outside the image. Both gradients are gathers too, so nothing here is summed by atomics or in an order that varies.
//
// These kernels take every shape and are not the fast ones: an operator launches its own where it has them.
#pragma once
#include "device.cuh"

struct Aggregation {
  const void* left;   // of the forward, x and weight; of the gradient of x, gradient and weight;
  const void* right;  // of the gradient of weight, gradient and x
  void* result;
  int groups, group_channels;
  int group_step, member_step;  // planes from a group's first channel to the next group's, and between its channels
  int height, width, out_height, out_width;
  int kernel, stride, padding, dilation;
  int blocks;  // for each image and group
};

// What a thread works on: one pixel of one group of one image.
struct AggregationPlace {
  long long image;
  int group, pixel;
};

DEVICE AggregationPlace place_of(const Aggregation& p) {
  const unsigned both = blockIdx.x / p.blocks;
  const int block = blockIdx.x - both * p.blocks;
  return {both / p.groups, static_cast<int>(both % p.groups), static_cast<int>(block * 128 + threadIdx.x)};
}

// The first channel of a place's group, in a tensor of [N, channels, plane].
template <typename T>
DEVICE T* channels_of(const void* tensor, const Aggregation& p, const AggregationPlace& place, int plane) {
  const long long first = place.image * (p.groups * p.group_channels) + place.group * p.group_step;
  return static_cast<T*>(const_cast<void*>(tensor)) + first * plane;
}

// The first tap of a place's group, in a tensor of [N, groups, taps, plane].
template <typename T>
DEVICE T* kernels_of(const void* tensor, const Aggregation& p, const AggregationPlace& place, int plane) {
  return static_cast<T*>(const_cast<void*>(tensor)) +
         (place.image * p.groups + place.group) * (p.kernel * p.kernel) * plane;
}

// Channels whose sums a thread carries at once: each weight it loads serves them all.
constexpr int AGGREGATED_CHANNELS = 8;

// grid: blocks * groups * images; one thread for each output pixel of a group.
template <typename T>
__global__ void __launch_bounds__(128) aggregate_any(const Aggregation p) {
  const AggregationPlace place = place_of(p);
  const int plane = p.height * p.width, out_plane = p.out_height * p.out_width, taps = p.kernel * p.kernel;
  if (place.pixel >= out_plane) return;
  const int i = place.pixel / p.out_width, j = place.pixel - i * p.out_width;
  const T* x = channels_of<const T>(p.left, p, place, plane);
  const T* weight = kernels_of<const T>(p.right, p, place, out_plane);
  T* y = channels_of<T>(p.result, p, place, out_plane);
  for (int first = 0; first < p.group_channels; first += AGGREGATED_CHANNELS) {
    float sums[AGGREGATED_CHANNELS] = {};
    for (int tap = 0; tap < taps; ++tap) {
      const int a = tap / p.kernel, b = tap - a * p.kernel;
      const int row = i * p.stride - p.padding + a * p.dilation, column = j * p.stride - p.padding + b * p.dilation;
      if (row < 0 || row >= p.height || column < 0 || column >= p.width) continue;
      const float factor = to_float(weight[tap * out_plane + place.pixel]);
#pragma unroll
      for (int m = 0; m < AGGREGATED_CHANNELS; ++m)
        if (first + m < p.group_channels)
          sums[m] = fmaf(factor, to_float(x[(first + m) * p.member_step * plane + row * p.width + column]), sums[m]);
    }
#pragma unroll
    for (int m = 0; m < AGGREGATED_CHANNELS; ++m)
      if (first + m < p.group_channels)
        y[(first + m) * p.member_step * out_plane + place.pixel] = from_float<T>(sums[m]);
  }
}

// grid: blocks * groups * images; one thread for each input pixel of a group, which asks every tap which output saw it.
template <typename T>
__global__ void __launch_bounds__(128) aggregate_any_input_gradient(const Aggregation p) {
  const AggregationPlace place = place_of(p);
  const int plane = p.height * p.width, out_plane = p.out_height * p.out_width, taps = p.kernel * p.kernel;
  if (place.pixel >= plane) return;
  const int row = place.pixel / p.width, column = place.pixel - row * p.width;
  const T* gradient = channels_of<const T>(p.left, p, place, out_plane);
  const T* weight = kernels_of<const T>(p.right, p, place, out_plane);
  T* grad_x = channels_of<T>(p.result, p, place, plane);
  for (int first = 0; first < p.group_channels; first += AGGREGATED_CHANNELS) {
    float sums[AGGREGATED_CHANNELS] = {};
    for (int tap = 0; tap < taps; ++tap) {
      const int a = tap / p.kernel, b = tap - a * p.kernel;
      const int down = row + p.padding - a * p.dilation, right = column + p.padding - b * p.dilation;
      if (down < 0 || down % p.stride || right < 0 || right % p.stride) continue;
      const int i = down / p.stride, j = right / p.stride;
      if (i >= p.out_height || j >= p.out_width) continue;
      const int pixel = i * p.out_width + j;
      const float factor = to_float(weight[tap * out_plane + pixel]);
#pragma unroll
      for (int m = 0; m < AGGREGATED_CHANNELS; ++m)
        if (first + m < p.group_channels)
          sums[m] = fmaf(factor, to_float(gradient[(first + m) * p.member_step * out_plane + pixel]), sums[m]);
    }
#pragma unroll
    for (int m = 0; m < AGGREGATED_CHANNELS; ++m)
      if (first + m < p.group_channels)
        grad_x[(first + m) * p.member_step * plane + place.pixel] = from_float<T>(sums[m]);
  }
}

// grid: blocks * groups * images; one thread for each output pixel of a group writes the gradient of all its taps.
template <typename T>
__global__ void __launch_bounds__(128) aggregate_any_weight_gradient(const Aggregation p) {
  const AggregationPlace place = place_of(p);
  const int plane = p.height * p.width, out_plane = p.out_height * p.out_width, taps = p.kernel * p.kernel;
  if (place.pixel >= out_plane) return;
  const int i = place.pixel / p.out_width, j = place.pixel - i * p.out_width;
  const T* gradient = channels_of<const T>(p.left, p, place, out_plane) + place.pixel;
  const T* x = channels_of<const T>(p.right, p, place, plane);
  T* grad_weight = kernels_of<T>(p.result, p, place, out_plane);
  for (int tap = 0; tap < taps; ++tap) {
    const int a = tap / p.kernel, b = tap - a * p.kernel;
    const int row = i * p.stride - p.padding + a * p.dilation, column = j * p.stride - p.padding + b * p.dilation;
    float sum = 0;
    if (row >= 0 && row < p.height && column >= 0 && column < p.width)
      for (int m = 0; m < p.group_channels; ++m) {
        const int channel = m * p.member_step;
        sum = fmaf(to_float(gradient[channel * out_plane]), to_float(x[channel * plane + row * p.width + column]), sum);
      }
    grad_weight[tap * out_plane + place.pixel] = from_float<T>(sum);
  }
}
