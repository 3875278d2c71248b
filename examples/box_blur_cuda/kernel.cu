// Mean over a square window, zeros outside the image: one thread, one output.
#include "device.cuh"

struct Blur {
  const void* x;  // [N, C, H, W]
  void* y;        // [N, C, H, W]
  int radius, height, width, count;
};

template <typename T>
__global__ void blur(const Blur p) {
  const int i = blockIdx.x * 256 + threadIdx.x;
  if (i >= p.count) return;
  const int column = i % p.width, row = i / p.width % p.height;
  const T* here = static_cast<const T*>(p.x) + i;
  float sum = 0;
  for (int a = max(-p.radius, -row); a <= min(p.radius, p.height - 1 - row); ++a)
    for (int b = max(-p.radius, -column); b <= min(p.radius, p.width - 1 - column); ++b)
      sum += to_float(here[a * p.width + b]);
  const int side = 2 * p.radius + 1;
  static_cast<T*>(p.y)[i] = from_float<T>(sum / (side * side));
}
