// Small-kernel aggregation: y[n,c,h,w] = sum over taps i of x[n,c,h+dh(i),w+dw(i)] * weight[n,group(c),i,h,w], zeros
// outside the image. Every gradient is a gather as well, so no kernel here needs atomics.
#include "device.cuh"

struct Aggregation {
  const void* x;       // [N, C, H, W]
  const void* weight;  // [N, G, K, K, H, W]
  void* y;             // [N, C, H, W]
  int groups, group_channels, height, width;
};

// Distance, in planes, between the first channel of the tensor's image and channel `member` of a group.
template <bool INTERLEAVED>
DEVICE int channel_of(const Aggregation& p, int group, int member) {
  return INTERLEAVED ? member * p.groups + group : group * p.group_channels + member;
}

// One thread is one pixel of one group; it loads the pixel's kernel once and uses it for all channels of the group.
template <typename T, int K, bool INTERLEAVED>
__global__ void __launch_bounds__(128) aggregate(const Aggregation p) {
  const int plane = p.height * p.width, pixel = blockIdx.x * 128 + threadIdx.x;
  if (pixel >= plane) return;
  const int h = pixel / p.width, w = pixel - h * p.width, group = blockIdx.y;
  const long long image = blockIdx.z;
  const T* weight = static_cast<const T*>(p.weight) + (image * p.groups + group) * (K * K) * plane + pixel;
  float kernel[K * K];
#pragma unroll
  for (int tap = 0; tap < K * K; ++tap) kernel[tap] = to_float(weight[tap * plane]);
  for (int member = 0; member < p.group_channels; ++member) {
    const long long offset =
        (image * p.groups * p.group_channels + channel_of<INTERLEAVED>(p, group, member)) * plane;
    const T* x = static_cast<const T*>(p.x) + offset;
    float sum = 0;
#pragma unroll
    for (int a = 0; a < K; ++a)
#pragma unroll
      for (int b = 0; b < K; ++b) {
        const int row = h + a - K / 2, column = w + b - K / 2;
        if (row >= 0 && row < p.height && column >= 0 && column < p.width)
          sum += kernel[a * K + b] * to_float(x[row * p.width + column]);
      }
    static_cast<T*>(p.y)[offset + pixel] = from_float<T>(sum);
  }
}
