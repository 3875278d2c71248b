// Small-kernel aggregation, as in kernel.cu, for kernels of 3 x 3 and maps of 7 columns in 16 bits: rows that are no
// whole vectors.
//
// A block takes a bundle of groups whose planes together are whole vectors: it copies their channels and kernels to
// shared memory, a thread takes a row through some channels there, and the results go back as vectors again.
#include "planes.cuh"

constexpr int THREADS = 128;
constexpr int TAPS = 9;  // of 3 x 3

// Groups whose planes together are whole vectors; those of each of their channels are a run of planes in an image, and
// one run follows the other in shared memory. Kernels are as they are.
struct Bundle {
  int images, groups, members;
  int count;          // groups of a bundle
  int shares, share;  // equal shares of the members, one of which a thread weighs
  int height;
  float per_height, per_shares, per_vectors;  // 1 / height, 1 / shares, 1 / vectors of a run
};

struct PlaneAggregation {
  const void* x;       // [N, C, H, W]
  const void* weight;  // [N, G, 3, 3, H, W]
  void* y;             // [N, C, H, W]
  Bundle bundle;
};

struct PlaneAggregationGradients {
  const void* gradient;  // [N, C, H, W]
  const void* x;         // [N, C, H, W]; null unless the gradient of the weight is wanted
  const void* weight;    // [N, G, 3, 3, H, W]; null unless that of x is wanted
  void* grad_x;          // [N, C, H, W] or null
  void* grad_weight;     // [N, G, 3, 3, H, W] or null
  Bundle bundle;
};

// Where a block's bundle begins, and how much of it there is.
struct Place {
  bool exists;
  int plane, values, segments;  // values of a plane; values and segments of a run
  Runs channels;
  long long channel, kernel;  // offsets of its first channel and of its first kernel
};

template <typename T>
DEVICE Place place_of(const Bundle& bundle) {
  const long long image = blockIdx.z * gridDim.y + blockIdx.y;
  const int plane = bundle.height * SEGMENT, values = bundle.count * plane, first = blockIdx.x * values;
  const int vectors = values * static_cast<int>(sizeof(T)) / 16;
  return {image < bundle.images,
          plane,
          values,
          values / SEGMENT,
          {bundle.members, vectors, bundle.per_vectors, bundle.groups * plane},
          image * (bundle.groups * bundle.members * plane) + first,
          image * (bundle.groups * TAPS * plane) + first * TAPS};
}

// Weighs the windows of a segment in `share` channels by the kernels of its pixels.
template <typename T>
DEVICE void weigh_members(Run<T> y, Window<1, T> window, const float (&kernel)[TAPS][SEGMENT], int share) {
#pragma unroll 1
  for (int member = 0; member < share; ++member) {
    float rows[3][SEGMENT + 2], sums[SEGMENT];
    load_window(rows, window);
    weigh<3>(sums, kernel, rows);
    store_run(y, sums);
  }
}

// A thread takes a segment through a share of a group's channels. Neighbours among threads take the shares of one
// segment, so that they read the same kernels.
//
// Predicted bound on an H200, groups of 8, 7 x 7: memory, 0.38 cycles of a multiprocessor an output; instructions issue
// in 0.34, of which copies take 0.06, and shared memory is busy for 0.28.
template <typename T>
__global__ void __launch_bounds__(THREADS) aggregate_planes(const PlaneAggregation p) {
  const Bundle& bundle = p.bundle;
  const Place place = place_of<T>(bundle);
  if (!place.exists) return;
  SHARED_MEMORY(T, shared);
  const int x = ZEROS, weight = x + bundle.members * place.values, y = weight + TAPS * place.values;
  copy_in(shared + weight, static_cast<const T*>(p.weight) + place.kernel, TAPS * place.values);
  copy_in(shared + x, static_cast<const T*>(p.x) + place.channel, place.channels);
  finish_copies(shared);

  for (int task = threadIdx.x; task < bundle.shares * place.segments; task += THREADS) {
    const int number = quotient(task, bundle.per_shares), part = task - number * bundle.shares;
    const int group = quotient(number, bundle.per_height), row = number - group * bundle.height;
    const int first = part * bundle.share * place.values + number * SEGMENT;
    float kernel[TAPS][SEGMENT];
    const int taps = weight + group * (TAPS - 1) * place.plane + number * SEGMENT;
#pragma unroll
    for (int tap = 0; tap < TAPS; ++tap) {
      Run<T> run = run_at(shared, taps + tap * place.plane, true, 0);
      load_run(kernel[tap], run);
    }
    weigh_members(run_at(shared, y + first, true, place.values),
                  window_at<1>(shared, x + first, number, row, bundle.height, place.values), kernel, bundle.share);
  }
  __syncthreads();
  copy_out(static_cast<T*>(p.y) + place.channel, shared + y, place.channels);
}

// Loads for each pixel of a segment the taps that reach it from its neighbours, zeros for those beyond the image.
template <typename T>
DEVICE void load_turned(float (&kernel)[TAPS][SEGMENT], T* shared, int taps, int row, int plane, int height) {
#pragma unroll
  for (int tap = 0; tap < TAPS; ++tap) {
    const int down = tap / 3 - 1, right = tap % 3 - 1, offset = taps + (TAPS - 1 - tap) * plane + down * SEGMENT;
    float beside[SEGMENT];
    Run<T> run = run_at(shared, offset, has_row(row, down, height), 0);
    load_run(beside, run);
#pragma unroll
    for (int i = 0; i < SEGMENT; ++i) kernel[tap][i] = i + right < 0 || i + right >= SEGMENT ? 0 : beside[i + right];
  }
}

// The gradients that are wanted. A thread takes a segment through all channels of a group, for that of x or for that of
// the weight; no warp does both.
//
// Predicted bound on an H200, groups of 8, 7 x 7, for an element of x: memory, 0.64 cycles; shared memory is busy for
// 0.58, and instructions issue in 0.57, of which copies take 0.10.
template <typename T, bool GRAD_X, bool GRAD_WEIGHT>
__global__ void __launch_bounds__(THREADS) aggregate_planes_backward(const PlaneAggregationGradients p) {
  const Bundle& bundle = p.bundle;
  const Place place = place_of<T>(bundle);
  if (!place.exists) return;
  const int values = bundle.members * place.values, kernel_values = TAPS * place.values;
  SHARED_MEMORY(T, shared);
  const int gradient = ZEROS, x = gradient + values, weight = x + values;
  const int grad_x = weight + kernel_values, grad_weight = grad_x + values;
  copy_in(shared + gradient, static_cast<const T*>(p.gradient) + place.channel, place.channels);
  if constexpr (GRAD_X)
    copy_in(shared + weight, static_cast<const T*>(p.weight) + place.kernel, TAPS * place.values);
  if constexpr (GRAD_WEIGHT) copy_in(shared + x, static_cast<const T*>(p.x) + place.channel, place.channels);
  finish_copies(shared);

  const int of_x = GRAD_X ? (place.segments + 31) / 32 * 32 : 0, tasks = of_x + (GRAD_WEIGHT ? place.segments : 0);
  for (int task = threadIdx.x; task < tasks; task += THREADS) {
    const int number = task < of_x ? task : task - of_x, first = number * SEGMENT;
    if (number >= place.segments) continue;
    const int group = quotient(number, bundle.per_height), row = number - group * bundle.height;
    const int taps = group * (TAPS - 1) * place.plane + first;
    if (GRAD_X && task < of_x) {
      float turned[TAPS][SEGMENT];
      load_turned(turned, shared, weight + taps, row, place.plane, bundle.height);
      weigh_members(run_at(shared, grad_x + first, true, place.values),
                    window_at<1>(shared, gradient + first, number, row, bundle.height, place.values), turned,
                    bundle.members);
    } else if constexpr (GRAD_WEIGHT) {
      Run<T> own = run_at(shared, gradient + first, true, place.values);
      Window<1, T> window = window_at<1>(shared, x + first, number, row, bundle.height, place.values);
      float sums[TAPS][SEGMENT] = {};
#pragma unroll 1
      for (int member = 0; member < bundle.members; ++member) {
        float gradients[SEGMENT], rows[3][SEGMENT + 2];
        load_run(gradients, own);
        load_window(rows, window);
        correlate<3>(sums, gradients, rows);
      }
#pragma unroll
      for (int tap = 0; tap < TAPS; ++tap) {
        Run<T> run = run_at(shared, grad_weight + taps + tap * place.plane, true, 0);
        store_run(run, sums[tap]);
      }
    }
  }
  __syncthreads();
  if constexpr (GRAD_X) copy_out(static_cast<T*>(p.grad_x) + place.channel, shared + grad_x, place.channels);
  if constexpr (GRAD_WEIGHT)
    copy_out(static_cast<T*>(p.grad_weight) + place.kernel, shared + grad_weight, TAPS * place.values);
}
