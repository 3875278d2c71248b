// y = x * factor[channel], and the products whose sums are the factor's gradient.
#include "device.cuh"

struct Scale {
  const void* x;
  const void* factor;
  void* y;
  int channels, plane, count;
};

template <typename T>
__global__ void scale(const Scale p) {
  const int i = blockIdx.x * 64 + threadIdx.x;
  if (i >= p.count) return;
  const float factor = to_float(static_cast<const T*>(p.factor)[i / p.plane % p.channels]);
  static_cast<T*>(p.y)[i] = from_float<T>(to_float(static_cast<const T*>(p.x)[i]) * factor);
}
