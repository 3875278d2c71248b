// Form B on windows of any size: the sum of attention.cu with no affinity kept, each formed again for every MEMBERS
// channels that it weighs.
#include "rows.cuh"

struct AnyAttention {
  const void* query;  // [N, C, H, W], as are all
  const void* key;
  const void* value;
  void* y;
  int images, heads, head_width, height, width, kernel_size, parts;  // parts: of a head, MEMBERS channels each
  float scale;
};

constexpr int THREADS = 128;
constexpr int MEMBERS = 8;

// One thread is one pixel of MEMBERS channels of a head. Predicted bound on an H200: the loads of two values for each
// multiply-add of an affinity, which L1 serves; no published layer has such a window.
template <typename T>
__global__ void __launch_bounds__(THREADS) attend_any(const AnyAttention p) {
  const int image = blockIdx.z * gridDim.y + blockIdx.y, plane = p.height * p.width, reach = p.kernel_size / 2;
  const Segment at = segment_at<1>(blockIdx.x * THREADS + threadIdx.x, p.height, p.width);
  const int head = at.plane / p.parts, member = (at.plane - head * p.parts) * MEMBERS;
  if (image >= p.images || head >= p.heads) return;
  const long long pixel = static_cast<long long>(image) * (p.heads * p.head_width * plane) +
                          head * p.head_width * plane + at.row * p.width + at.column;
  const T* query = static_cast<const T*>(p.query) + pixel;
  const T* key = static_cast<const T*>(p.key) + pixel;
  const T* value = static_cast<const T*>(p.value) + pixel + member * plane;
  T* y = static_cast<T*>(p.y) + pixel + member * plane;
  const int count = min(MEMBERS, p.head_width - member);
  float sums[MEMBERS] = {};
  for (int down = -reach; down <= reach; ++down) {
    if (!has_row(at.row, down, p.height)) continue;
    for (int right = -reach; right <= reach; ++right) {
      if (!has_column(at.column, right, p.width)) continue;
      const int offset = down * p.width + right;
      float affinity = 0;
      for (int channel = 0; channel < p.head_width; ++channel)
        affinity += to_float(query[channel * plane]) * to_float(key[channel * plane + offset]);
#pragma unroll
      for (int t = 0; t < MEMBERS; ++t)
        if (t < count) sums[t] += affinity * to_float(value[t * plane + offset]);
    }
  }
#pragma unroll
  for (int t = 0; t < MEMBERS; ++t)
    if (t < count) y[t * plane] = from_float<T>(p.scale * sums[t]);
}
